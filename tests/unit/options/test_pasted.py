"""What people paste from a Procfile, a unit or a start script into ARGS.

The table in docs/procfile.md shows some of it, and what to write instead.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import pytest
from django.core import checks

from prodserver_celery5.backends import CeleryBeat, CeleryWorker
from prodserver_celery5.checks import check_processes
from prodserver_celery5.entry import Entry
from prodserver_celery5.options.pasted import without
from prodserver_celery5.process import prefork

# What was pasted; the id of the finding, or None; and part of the finding's text, or
# the words that follow `celery … worker` on the command line.
Row = tuple[Any, "str | None", str]

SHELL = "ARGS are not read by a shell"
ONLY = "only what follows `celery worker` belongs here."

WORKER: list[Row] = [
    # Shell variables
    ("-l INFO -c 1 -Q $QUEUES", "W013", f'{SHELL}, so $QUEUES stays as it is. Write "ARGS":'
     ' ["-l", "INFO", "-c", "1", "-Q", os.environ["QUEUES"]] in the settings.'),
    ("celery -A proj worker -l INFO -Q $QUEUES", "E007", f"word 'celery': {ONLY} Write"
     ' "ARGS": ["-l", "INFO", "-Q", os.environ["QUEUES"]].'),
    ("-n $NAME@$HOST -Q $QUEUES -s ${FILE:-x} --prefetch-multiplier 4", "W013",
     'so $NAME, $HOST, $QUEUES, ${FILE:-x} stay as they are. Write "ARGS": ["-n",'
     """ f"{os.environ['NAME']}@{os.environ['HOST']}", "-Q", os.environ["QUEUES"], "-s","""
     ' os.environ.get("FILE", "x"), "--prefetch-multiplier", "4"] in the settings.'),
    ("-c $WORKERS -Q $QUEUES", "E007", 'Write "ARGS": ["-c", os.environ["WORKERS"], "-Q",'
     ' os.environ["QUEUES"]] in the settings.'),
    ({"concurrency": "$WORKERS", "queues": ["a", "$QUEUE"]}, "E007", 'Write "concurrency":'
     ' os.environ["WORKERS"], "queues": ["a", os.environ["QUEUE"]] in the settings.'),
    ("-Q ${CELERY_QUEUE:-celery}", "W013", 'os.environ.get("CELERY_QUEUE", "celery")'),
    ({"queues": "$QUEUES"}, "W013", 'Write "queues": os.environ["QUEUES"] in'),
    ({"queues": ["a", "${QUEUES}"]}, "W013", 'os.environ["QUEUES"]'),
    (["-Q", "$QUEUES"], "W013", "ARGS = ['-Q', '$QUEUES']: "),
    ("-n worker@$(hostname)", "W013", 'so $(hostname) stays as it is. Write "ARGS": ["-n", f"worker@…"]'
     " in the settings. Put the value itself for …."),
    ("-c $WORKERS", "E007", 'Write "ARGS": ["-c", os.environ["WORKERS"]] in the settings.'),
    ("--autoscale ${MAX},${MIN}", "E007", "ARGS --autoscale: it takes one or two numbers, the"
     ' maximum first, such as 10,3. Write "ARGS": ["--autoscale",'),
    # Lines that a backslash continues, and paths of Windows
    ("-l INFO \\\n  -c 2", None, "-l INFO -c 2"),
    (r"-f C:\logs\worker.log", "W018", r"C:\logs\worker.log loses its backslashes, as in a"
     r" shell. Write / for \, or give ARGS as a dict or a list of words."),
    (r"-f 'C:\logs\worker.log'", None, r"-f C:\logs\worker.log"),
    ({"logfile": "~/no-such-folder/x.log"}, "W003", "Nothing expands ~: write Path.home()."),
    ("-n price$", None, "-n price$"),
    # The whole line
    ("celery -A proj worker -l INFO", "E007", f"word 'celery': {ONLY} Write \"ARGS\": \"-l INFO\"."),
    ("celery -A proj --workdir=/ -q worker -E", "E007", 'Write "ARGS": "--workdir=/ -q -E".'),
    ("celery -A proj worker", "E007", "Remove it: none of it is needed."),
    ("celery --app=proj -bredis:// worker -E", "E007", 'Write "ARGS": "-E".'),
    ("/usr/bin/celery -A proj worker -E", "E007", 'Write "ARGS": "-E".'),
    ("exec celery -A proj worker -l INFO", "E007", "word 'exec': "),
    ("REMAP_SIGTERM=SIGQUIT celery -A proj worker -E", "E007",
     'Write "ARGS": "-E". What stands before celery (REMAP_SIGTERM=SIGQUIT …) stays in the Proc'),
    ("newrelic-admin run-program celery -A proj worker -E", "E007",
     'Write "ARGS": "-E". What stands before celery (newrelic-admin …) stays in the Procfile.'),
    ("celery -A proj worker -Q beat", "E007", 'Write "ARGS": "-Q beat".'),
    ("worker -l INFO", "E007", 'Write "ARGS": "-l INFO".'),
    ("exec worker -l INFO", "E007", 'Write "ARGS": "-l INFO".'),
    ("celery --app proj --broker redis:// worker -E", "E007", 'Write "ARGS": "-E".'),
    ("celery -A proj beat -l INFO", "E007", "This entry runs worker, not beat."),
    ("REMAP_SIGTERM=SIGQUIT -l INFO", "E007", "ARGS word 'REMAP_SIGTERM=SIGQUIT': it belongs"
     " to no option. A variable stays in front of the command in the Procfile."),
    ("-A proj -l INFO", "E006", "--app: this has no place in ARGS. Use the key APP in"),
    ("-Aproj -l INFO", "E006", "--app: this has no place in ARGS. Use the key APP in"),
    ("-b redis://localhost -l INFO", "E006", "Set CELERY_BROKER_URL in the settings"),
    ({"A": "proj"}, "E006", "Use the key APP instead."),
    ({"b": "redis://localhost"}, "E006", "Set CELERY_BROKER_URL in the settings"),
    ("-q -l INFO", None, "-l INFO"),
    ("-C -l INFO", None, "-l INFO"),
    ("-Eq -l INFO", "E006", "worker has no such option. Did you mean 'quiet'?"),
    ({"q": True, "C": True, "loglevel": "INFO"}, None, "--loglevel=INFO"),
    # A stray word
    ("-l INFO &", "E007", f"ARGS word '&': it belongs to no option. {SHELL}. Remove it."),
    ("-l INFO > log 2>&1", "E007", f"ARGS word '>': it belongs to no option. {SHELL}. Use --logfile=… instead."),
    ("-l INFO | tee log", "E007", "ARGS word '|': "),
    ("-l INFO && echo done", "E007", "ARGS word '&&': "),
    ("-l INFO # note", "E007", "ARGS cannot have comments."),
    ("-Q default, mail", "E007", "Remove the space before it: default,mail."),
    ('-l INFO "$@"', "E007", f"ARGS word '$@': it belongs to no option. {SHELL}. Remove it."),
    ("-l INFO $(cat options)", "E007", f"ARGS word '$(cat': it belongs to no option. {SHELL}. Remove it."),
    ("-l INFO `cat options`", "E007", f"ARGS word '`cat': it belongs to no option. {SHELL}. Remove it."),
    ("\u2014loglevel=info", "E007", "A text editor changed its dashes: write --loglevel=info."),
    ("-l INFO now", "E007", "ARGS word 'now': it belongs to no option."),
    ("-- celeryd.prefetch_multiplier=1", "E007", "ARGS word 'celeryd.prefetch_multiplier=1'"
     ": it is not a setting such as worker.prefetch_multiplier=1."),
    ("-- worker.prefetch_multiplier=1", None, "-- worker.prefetch_multiplier=1"),
    # From supervisor, systemd or Elastic Beanstalk
    ("-n worker@%%h", "W014", "Celery reads %%h as the two characters %h. Write"
     " %h: systemd and supervisor need two, settings one."),
    ({"hostname": "worker@%%h"}, "W014", "ARGS['hostname'] = 'worker@%%h': "),
    (["-n", "worker@%%h"], "W014", "ARGS = ['-n', 'worker@%%h']: "),
    ({"hostname": "worker@%h"}, None, "--hostname=worker@%h"),
    # Letters that only look like options of `celery` itself
    ("-Qbeat -nAb@%h", None, "-Qbeat -nAb@%h"),
    ("-n celery -Q beat", None, "-n celery -Q beat"),
]  # fmt: skip

BEAT: list[Row] = [
    ("celery -A proj beat -l INFO", "E007", 'Write "ARGS": "-l INFO".'),
    ("celery -A proj worker -l INFO", "E007", "This entry runs beat, not worker."),
    ("-A proj -l INFO", "E006", "Use the key APP instead."),
    ("-s $SCHEDULE", "W013", 'os.environ["SCHEDULE"]'),
    ("-l INFO -S django_celery_beat.schedulers:DatabaseScheduler", None,
     "-l INFO -S django_celery_beat.schedulers:DatabaseScheduler"),
]  # fmt: skip

ROWS = [(CeleryWorker, *row) for row in WORKER] + [(CeleryBeat, *row) for row in BEAT]


@pytest.mark.parametrize(("backend", "args", "id_", "text"), ROWS)
def test_what_is_pasted(
    settings: Any, backend: Any, args: Any, id_: str | None, text: str
) -> None:
    entry = {
        "BACKEND": f"prodserver_celery5.backends.{backend.__name__}",
        "APP": "prayer_room_api",
        "ARGS": args,
    }
    settings.PRODUCTION_PROCESSES = {"shop": entry}
    found = check_processes()
    if id_ is None:
        assert found == []
        context = backend(**entry).entry.context
        assert " ".join(context.meta["words"]) == text
        return
    (message,) = found
    assert message.id == f"prodserver_celery5.{id_}"
    assert isinstance(message, checks.Error if id_[0] == "E" else checks.Warning)
    (finding,) = backend(**entry).findings()
    line = str(finding)
    # A text that ends in a full stop ends the line.
    assert line.endswith(text) if text.endswith(".") else text in line
    assert line.startswith("shop: ")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ("exec celery -A proj worker -l INFO", 'Write "ARGS": "-l INFO".'),
        (
            "nice celery worker",
            "Remove it: none of it is needed. What stands before celery (nice …)",
        ),
    ],
)
def test_what_stands_before_celery(settings: Any, args: str, hint: str) -> None:
    path = "prodserver_celery5.backends.CeleryWorker"
    entry = {"BACKEND": path, "APP": "prayer_room_api", "ARGS": args}
    settings.PRODUCTION_PROCESSES = {"shop": entry}
    (message,) = check_processes()
    assert message.hint
    assert message.hint.removesuffix(" stays in the Procfile.") == hint


@pytest.mark.parametrize("silenced", [False, True])
def test_a_doubt_is_one_line_of_a_start_that_goes_on(
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    silenced: bool,
) -> None:
    settings.SILENCED_SYSTEM_CHECKS = ["prodserver_celery5.W013"] * silenced
    monkeypatch.setattr(Entry, "running", False)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)
    monkeypatch.setattr("prodserver_celery5.options.command.run", lambda context: 0)
    backend = CeleryWorker(APP="prayer_room_api", ARGS="-Q price$EUR")
    with pytest.raises(SystemExit):
        backend.start_server(*backend.prep_server_args())
    line = (
        "Warning: worker: ARGS = '-Q price$EUR': ARGS are not read by a shell, so $EUR"
        ' stays as it is. Write "ARGS": ["-Q", f"price{os.environ[\'EUR\']}"] in the'
        " settings.\n"
    )
    assert capsys.readouterr().err == ("" if silenced else line)


class Full:
    """A standard error without room."""

    def write(self, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_doubt_that_nobody_can_read_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Entry, "running", False)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(prefork, "share_memory", lambda pool: None)
    monkeypatch.setattr("prodserver_celery5.options.command.run", lambda context: 3)
    backend = CeleryWorker(APP="prayer_room_api", ARGS="-Q price$EUR")
    words = backend.prep_server_args()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Full())
        with pytest.raises(SystemExit) as ended:
            backend.start_server(*words)
    assert ended.value.code == 3


def test_an_option_is_dropped_with_its_value_and_no_other() -> None:
    words = ["--beat", "--pool=solo", "-c", "2", "-c=3"]
    assert without(words, ["--beat", "-c"]) == ["--pool=solo"]
