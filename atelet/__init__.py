"""The node agent: carries out on its node what the control service decides."""
