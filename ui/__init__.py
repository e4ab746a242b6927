"""What people see of a library: the search page and the server that carries it."""
