"""The suite on one machine: `ate up`, `ate down`, `ate status` and the demo.

It supervises ateapi, atelet and ateom as processes of their own and knows them by their flags,
their sockets and what they leave on the machine; nothing imports it.
"""
