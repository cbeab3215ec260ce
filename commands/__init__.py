"""What each command of the command line parses, calls and prints; `cli.py` lists them."""
