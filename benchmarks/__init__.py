"""What `make bench` runs: each costly step of the library beside the tool that people use for it today."""
