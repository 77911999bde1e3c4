"""APM agents, each started by code of the settings, with a file of the test's as sink.

A line of the sink says what an agent would have sent: a transaction with its spans, a
span, an error.
"""

__all__ = ("AGENTS", "TASKS", "TRANSPORT")

TASKS = """
from celery import shared_task
from django.conf import settings
from tests.behaviour.tasks import note


def look():
    # What the agent knows of this moment, where it can be asked.
    getattr(settings, "LOOK", lambda: None)()


@shared_task(name="inner")
def inner():
    look()


@shared_task(name="outer")
def outer():
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    look()
    inner()
    note("ended outer")


@shared_task(name="fails")
def fails():
    look()
    note("ended fails")
    raise ValueError("on purpose")
"""

_SINK = """
import os

def sink(text):
    # One write to a file opened for appending: lines of many processes never mix.
    with open(os.environ["NOTES"] + ".sink", "ab", buffering=0) as file:
        file.write(f"{text}\\n".encode())
"""

_SENTRY = """
def start_agent():
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Sink(Transport):
        def capture_envelope(self, envelope):
            for item in envelope.items:
                payload = item.payload.json
                if item.type == "transaction":
                    spans = [(s["op"], s["description"]) for s in payload["spans"]]
                    sink(f"transaction {payload['transaction']}: {sorted(spans)}")
                elif item.type == "event":
                    (error,) = payload["exception"]["values"]
                    sink(f"error {error['type']} in {payload['transaction']}")

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Sink
    )
"""

_OPENTELEMETRY = """
def start_agent():
    from opentelemetry import trace
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

    class Sink(SpanExporter):
        def export(self, spans):
            for span in spans:
                status = span.status.status_code.name
                sink(f"span {span.name} {span.kind.name} {status}")

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Sink()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()
"""

_DDTRACE = """
def start_agent():
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    class Sink(TraceFilter):
        def process_trace(self, trace):
            for span in trace:
                sink(f"span {span.name} {span.resource} {span.error}")

    tracer.configure(trace_processors=[Sink()])
    patch(celery=True)
"""

_ELASTIC = """
def start_agent():
    import elasticapm
    from elasticapm.contrib.celery import register_exception_tracking
    from elasticapm.contrib.celery import register_instrumentation

    client = elasticapm.Client(transport_class="own_transport.Sink", service_name="x")
    register_instrumentation(client)
    register_exception_tracking(client)
    elasticapm.instrument()
"""

# The module of its transport, which it takes by name.
TRANSPORT = (
    _SINK
    + """
from elasticapm.transport.base import Transport

class Sink(Transport):
    def start_thread(self, pid=None):
        pass

    def queue(self, event_type, data, flush=False):
        if event_type != "metricset":
            what = data.get("exception", {}).get("type")
            sink(f"{event_type} {data.get('name') or what} {data.get('result')}")

    def close(self):
        pass
"""
)

# It sends nothing without its service: what it takes a task for is told by the task.
_NEWRELIC = """
def start_agent():
    # Its import reads them.
    os.environ["NEW_RELIC_DEVELOPER_MODE"] = "true"
    os.environ["NEW_RELIC_LICENSE_KEY"] = "0" * 40
    import newrelic.agent

    newrelic.agent.initialize()
    newrelic.agent.register_application(timeout=10)

def LOOK():
    import newrelic.agent

    seen = newrelic.agent.current_transaction()
    sink(f"transaction {seen and (seen.name, seen.background_task)}")
"""

# Each by the module that it needs; the last three in a nox session of their own.
AGENTS = {
    "sentry_sdk": _SINK + _SENTRY,
    "opentelemetry.instrumentation.celery": _SINK + _OPENTELEMETRY,
    "ddtrace": _SINK + _DDTRACE,
    "elasticapm": _SINK + _ELASTIC,
    "newrelic": _SINK + _NEWRELIC,
}
