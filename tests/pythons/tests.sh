#!/usr/bin/env bash
# Run what a new Python can break, on one of Debian sid's: tests/pythons/tests.sh 3.15
set -euo pipefail
export VIRTUAL_ENV=/tmp/env PATH=/tmp/env/bin:$PATH
uv venv --quiet --python "/usr/bin/python$1" "$VIRTUAL_ENV"
uv pip install --quiet . --group behaviour
python --version
pytest=(python -m pytest -q -p no:cacheprovider)
"${pytest[@]}" -n 2 tests/unit --ignore=tests/unit/prayer_room
"${pytest[@]}" tests/differential
# A start, a task and a stop; each pool, its probe and the memory that is shared; a broker
# that goes away; a beat and a leader. The servers and pools that are left out depend on
# Python no more than these.
"${pytest[@]}" -n 4 \
    tests/processes/test_procfile.py::test_worker_runs_a_task_whose_effect_is_in_the_database \
    tests/processes/test_procfile.py::test_idle_processes_end_with_0 \
    tests/processes/test_heartbeat.py::test_a_worker_from_its_start_to_its_end \
    tests/processes/test_heartbeat.py::test_a_worker_whose_broker_goes_away_and_comes_back \
    tests/processes/test_heartbeat.py::test_a_beat_from_its_start_to_its_end \
    tests/processes/test_leader.py::test_one_sends_and_the_other_takes_over \
    tests/processes/test_prefork.py \
    -k 'not rabbitmq and not mariadb and not eventlet and not solo and not pool and not 600'
# The last Celery that was made for an older Python.
uv pip install --quiet 'celery~=5.3.0' 'kombu[redis]'
"${pytest[@]}" -n 3 -m smoke -k 'filesystem or broker_goes_away' tests/processes
