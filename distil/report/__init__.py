"""A run as one page that a person can show to a colleague: no server, no network, one file of HTML."""
