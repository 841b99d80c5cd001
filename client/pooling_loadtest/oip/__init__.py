"""Messages of the Open Inference Protocol (version 2), as a client sends them."""
