"""One module per noun of the command line. What a command works with is imported when it runs."""
