"""What nox starts for a person: the Procfile's processes, and a demonstration."""
