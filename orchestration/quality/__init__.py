"""Great Expectations suites and the tables that they look at."""
