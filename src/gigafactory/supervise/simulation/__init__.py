"""A cluster that is not there: what fails, how long things take, and what is so with its hosts."""
