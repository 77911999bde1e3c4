"""The package's own plugin starts the processes that the tests are about."""

pytest_plugins = ["prodserver_celery5.pytest_plugin"]
