"""Downloads: photos that a table lists by their addresses; asked for politely, kept one by one, never asked twice."""
