"""Development tools: the demonstration, `nox -s serve` and the mutants."""
