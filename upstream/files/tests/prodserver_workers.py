class _DummyWorkerBackend(BaseWorkerBackend):
    """A worker backend that says that it has been started."""

    def start_server(self, *args):
        raise SystemExit(42)


class TestProdserverWorkers(TestCase):
    """The alias starts what it started before 3.0.0, workers included."""

    @override_settings(
        PRODUCTION_PROCESSES={
            "worker": {"BACKEND": "tests.test_prodserver_command._DummyWorkerBackend"}
        }
    )
    def test_worker_backend_is_started(self):
        command = ProdServerCommand()
        command.stderr = StringIO()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            with pytest.raises(SystemExit) as exc_info:
                command.run_from_argv(["manage.py", "prodserver", "worker"])

        assert exc_info.value.code == 42

    def test_deprecation_message_mentions_both_commands(self):
        """Users of a worker have to know which command is theirs."""
        assert "manage.py server" in DEPRECATION_MESSAGE
        assert "manage.py worker" in DEPRECATION_MESSAGE
