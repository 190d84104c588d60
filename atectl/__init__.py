"""`ate`: the command line. It speaks gRPC to the control service and knows no other part."""
