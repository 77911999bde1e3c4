"""What an attacker on the open internet tries, and what comes of it.

Tests that need a real process are in tests/processes/test_internet.py.
"""

import tracemalloc
from base64 import b64encode

import pytest
from django.core import mail
from django.test import Client
from rest_framework.test import APIClient

from prayer_room_api import digests, tasks
from prayer_room_api.models import PrayerRequest
from prayer_room_api.settings import REST_FRAMEWORK
from prayer_room_api.throttling import Quota

pytestmark = pytest.mark.django_db

URL = "/api/requests/"
ADMIN = "/admin/prayer_room_api/prayerrequest/"


def post(body: bytes, client: APIClient | None = None, **headers: str):
    client = client or APIClient(raise_request_exception=False)
    return client.generic("POST", URL, body, "application/json", **headers)


def login(client: Client, password: str, **headers: str) -> bool:
    """Log in with the admin's form, and return whether it worked."""
    form = {"username": "moderator", "password": password}
    return client.post("/admin/login/", form, **headers).status_code == 302


def basic(password: str) -> str:
    return "Basic " + b64encode(f"moderator:{password}".encode()).decode()


@pytest.fixture
def rates(monkeypatch):
    """Set the hourly rates, by scope."""

    def rates(**counts: int) -> None:
        found = REST_FRAMEWORK["DEFAULT_THROTTLE_RATES"] | {
            scope: f"{count}/hour" for scope, count in counts.items()
        }
        monkeypatch.setattr(Quota, "THROTTLE_RATES", found)

    return rates


@pytest.fixture
def proxies(settings):
    def proxies(count: int) -> None:
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": count}

    return proxies


# --- Text -----------------------------------------------------------------------

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
UNSEEN = [
    "\u200b",
    "\u200b\u200c\u200d\u2060\ufeff",
    " \u200b ",
    "\u3164",  # a letter, to Unicode
    "\u2800",  # a symbol
    "\u00ad\u034f\U000e0041\ufe0f",
]


@pytest.mark.parametrize("field", ["name", "text", "response"])
@pytest.mark.parametrize(
    "text", [*(f"gnp.{each}exe" for each in BIDI), *UNSEEN], ids=ascii
)
def test_no_text_that_is_not_what_it_looks_like(staff_api, admin_client, field, text):
    request = PrayerRequest.objects.create(text="Peace")
    if field == "response":
        url, fields = f"{URL}{request.pk}/respond/", {"response": text}
    else:
        url, fields = URL, {"text": "Peace", field: text}
    answer = staff_api.post(url, fields, "json")
    assert answer.status_code == 400
    assert list(answer.json()) == [field]

    form = {"kind": "prayer", "text": "Peace", "name": "", "response": "", field: text}
    page = admin_client.post(f"{ADMIN}{request.pk}/change/", form)
    assert page.status_code == 200
    assert list(page.context["adminform"].form.errors) == [field]
    assert PrayerRequest.objects.values_list("name", "text", "response").get() == (
        "", "Peace", ""
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "שלום לכולם",
        "من أجل جاري",
        "می‌خواهم",  # with a zero-width non-joiner, as Persian is written
        "हिन्दी",
        "👩‍👩‍👧 ❤️",
        "e\u0301",
        "平和",
        "...",
    ],
)
def test_the_scripts_of_the_world_are_welcome(api, text):
    answer = api.post(URL, {"text": text, "name": text}, "json")
    assert answer.status_code == 201, answer.data


# --- Bodies ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400),
        (b"[" * 200_000, 413),
        (b'{"text": "' + b"x" * 3_000_000 + b'"}', 413),
        (b'{"text": "x", "name": "\xff"}', 400),
        (b'{"text": ' + b"9" * 5000 + b"}", 400),
        (b'{"text": NaN}', 400),
        (b"", 400),
    ],
    ids=["array", "object", "200 KB", "3 MB", "UTF-8", "digits", "NaN", "nothing"],
)
def test_a_body_that_is_none_gets_json(body, status):
    answer = post(body)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/json"
    assert answer.json()
    assert not PrayerRequest.objects.exists()


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x"],
)
@pytest.mark.parametrize(
    ("body", "statuses"), [(b"x" * 3_000_000, [413]), (b"x=1", [400, 403, 415])]
)
def test_a_form_with_a_session_gets_json(staff, content_type, body, statuses):
    # With a session, REST framework looks for a CSRF token in the form.
    client = APIClient(enforce_csrf_checks=True, raise_request_exception=False)
    client.force_login(staff)
    answer = client.generic("POST", URL, body, content_type)
    assert answer.status_code in statuses
    assert answer["Content-Type"] == "application/json"


def test_a_client_that_leaves_in_the_middle(monkeypatch):
    def leave(*args):
        raise OSError("gone")

    monkeypatch.setattr("django.test.client.FakePayload.read", leave)
    answer = post(b'{"text": "x"}')
    assert answer.status_code == 400
    assert not PrayerRequest.objects.exists()


@pytest.mark.parametrize("pk", ["9" * 30, "-1", "%00", "x"])
def test_a_number_that_no_request_can_have(api, pk):
    assert api.get(f"{URL}{pk}/").status_code == 404
    assert api.post(f"{URL}{pk}/flag/").status_code == 404


# --- Authority ------------------------------------------------------------------

ACTIONS = ["approve", "archive", "respond"]


def in_the_api(user, pk: int) -> dict[str, int]:
    client = APIClient()
    client.force_login(user)
    found = {
        "read": client.get(f"{URL}{pk}/").status_code,
        "list": client.get(URL, {"status": "pending"}).status_code,
    }
    for action in ACTIONS:
        answer = client.post(f"{URL}{pk}/{action}/", {"response": "Amen"}, "json")
        found[action] = answer.status_code
    return found


def in_the_admin(user, pk: int) -> dict[str, int]:
    client = Client()
    client.force_login(user)
    found = {
        "read": client.get(f"{ADMIN}{pk}/change/").status_code,
        "list": client.get(ADMIN).status_code,
    }
    for action in ("approve", "archive"):
        form = {"action": action, "_selected_action": [pk]}
        client.post(ADMIN, form)
        moved = PrayerRequest.objects.filter(pk=pk, status__startswith=action).exists()
        found[action] = 200 if moved else 403
        PrayerRequest.objects.filter(pk=pk).update(status="pending")
    form = {"kind": "prayer", "text": "Peace", "response": "Amen"}
    client.post(f"{ADMIN}{pk}/change/", form)
    answered = PrayerRequest.objects.filter(pk=pk, response="Amen").exists()
    found["respond"] = 200 if answered else 403
    return found


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        ([], []),
        (["add", "delete"], []),
        (["view"], ["read", "list"]),
        (["change"], ["read", "list", *ACTIONS]),
        (["view", "change"], ["read", "list", *ACTIONS]),
    ],
)
def test_permissions_are_the_same_in_admin_and_api(newcomer, may, permissions, allowed):
    may(newcomer, *permissions)
    for way in (in_the_admin, in_the_api):
        request = PrayerRequest.objects.create(text="Peace")
        found = way(newcomer, request.pk)
        granted = [name for name, status in found.items() if status == 200]
        assert granted == allowed, (way, found)
        refused = {status for name, status in found.items() if name not in allowed}
        # 404 for those who may not know that a request exists.
        assert refused <= {403, 404}, (way, found)


def test_what_is_private_stays_so_without_a_permission(newcomer, person):
    PrayerRequest.objects.create(
        text="Peace", status="approved", author=person, response="secret"
    )
    client = APIClient()
    client.force_login(newcomer)
    (listed,) = client.get(URL).data["results"]
    assert not {"author", "response", "flag_count"} & set(listed)


def test_permissions_without_being_staff_open_nothing(person, may):
    may(person, "view", "change")
    request = PrayerRequest.objects.create(text="Peace")
    assert set(in_the_api(person, request.pk).values()) <= {403, 404}
    request.move_to("approved")
    found = in_the_api(person, request.pk)
    assert {found[action] for action in ACTIONS} == {403}


@pytest.mark.parametrize(
    ("permissions", "sent"), [([], 0), (["add"], 0), (["view"], 1), (["change"], 1)]
)
def test_the_digest_tells_nobody_what_the_admin_would_not(
    newcomer, may, subscribe, permissions, sent
):
    may(newcomer, *permissions)
    subscribe("moderator", newcomer)
    PrayerRequest.objects.create(text="Peace")
    assert tasks.send_moderator_digest.apply(task_id="task").get() == sent


# --- Passwords ------------------------------------------------------------------


def test_the_page_and_the_api_share_their_quotas(client, api, rates):
    rates(submit=2, refused=1)
    peace = {"kind": "prayer", "text": "Peace"}
    assert client.post("/", peace).status_code == 302
    assert api.post("/api/requests/", peace, format="json").status_code == 201
    third = client.post("/", peace)
    assert third.status_code == 429
    assert "Please try again later." in third.content.decode()
    other = {"REMOTE_ADDR": "192.0.2.1"}
    assert client.post("/", {"kind": "prayer"}, **other).status_code == 400
    assert client.post("/", peace, **other).status_code == 429
    assert PrayerRequest.objects.count() == 2


def test_wrong_passwords_are_throttled_in_the_admin(staff, rates):
    rates(password=3)
    for _ in range(3):
        assert not login(Client(), "wrong")
    # Now the right one fails too, even in a new session.
    assert not login(Client(), "secret")
    page = Client().post("/admin/login/", {"username": "moderator", "password": "x"})
    assert "Too many wrong passwords" in page.content.decode()
    assert login(Client(), "secret", REMOTE_ADDR="192.0.2.7")


def test_wrong_passwords_are_throttled_in_the_api(staff, rates):
    rates(password=3)
    seen = [
        APIClient().get(URL, HTTP_AUTHORIZATION=basic(f"wrong {i}")).status_code
        for i in range(5)
    ]
    assert seen == [401, 401, 401, 429, 429]
    answer = APIClient().get(URL, HTTP_AUTHORIZATION=basic("secret"))
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0
    # One quota for both ways in.
    assert not login(Client(), "secret")
    # Requests without a password still work.
    assert APIClient().get(URL).status_code == 200


def test_a_wrong_password_too_many_is_not_even_hashed(staff, rates, monkeypatch):
    rates(password=1)
    assert not login(Client(), "wrong")
    monkeypatch.setattr("django.contrib.auth.hashers.check_password", pytest.fail)
    monkeypatch.setattr(type(staff), "check_password", pytest.fail)
    assert not login(Client(), "wrong")


def test_right_passwords_are_not_counted(staff, rates):
    rates(password=2)
    assert not login(Client(), "wrong")
    for _ in range(5):
        assert login(Client(), "secret")
        answer = APIClient().get(URL, HTTP_AUTHORIZATION=basic("secret"))
        assert answer.status_code == 200


# --- Quotas ---------------------------------------------------------------------


def flag(client: APIClient, pk: int):
    return client.post(f"{URL}{pk}/flag/")


def test_posting_and_flagging_have_a_limit_and_reading_has_none(api, rates):
    rates(submit=2, flag=3)
    request = PrayerRequest.objects.create(text="Peace", status="approved")
    posted = [api.post(URL, {"text": "x"}, "json").status_code for _ in range(4)]
    assert posted == [201, 201, 429, 429]
    flagged = [flag(api, request.pk).status_code for _ in range(5)]
    assert flagged == [204, 204, 204, 429, 429]
    assert {api.get(URL).status_code for _ in range(5)} == {200}
    # Other addresses are not affected.
    other = api.post(URL, {"text": "x"}, "json", REMOTE_ADDR="192.0.2.9")
    assert other.status_code == 201


def test_what_does_not_validate_is_not_counted_as_posted(api, rates):
    rates(submit=2, flag=1, refused=50)
    for body in (b"{}", b"no json", b'{"text": " "}', b'{"text": "\\u200b"}', b""):
        for _ in range(3):
            assert post(body).status_code == 400
    for _ in range(3):
        assert flag(api, 12345).status_code == 404
    assert [api.post(URL, {"text": "x"}, "json").status_code for _ in range(3)] == [
        201, 201, 429
    ]  # fmt: skip


def test_what_does_not_validate_has_a_limit_of_its_own(api, rates):
    rates(refused=3)
    seen = [post(b'{"text": ""}').status_code for _ in range(2)]
    seen += [flag(api, 12345).status_code, post(b"{}").status_code]
    assert seen == [400, 400, 404, 429]
    assert flag(api, 12345).status_code == 429
    # Reading still works.
    assert api.get(URL).status_code == 200


def test_those_who_come_at_once_are_all_counted(rf, rates):
    rates(password=2)
    quotas = [Quota("password") for _ in range(3)]
    assert [each.allow_request(rf.get("/"), None) for each in quotas] == [True] * 3
    for each in quotas[:2]:
        each.count()
    assert not quotas[2].allow_request(rf.get("/"), None)


def test_who_is_logged_in_is_counted_apart_from_their_network(api, person, rates):
    rates(submit=1)
    assert api.post(URL, {"text": "x"}, "json").status_code == 201
    assert api.post(URL, {"text": "x"}, "json").status_code == 429
    api.force_login(person)
    assert api.post(URL, {"text": "x"}, "json").status_code == 201
    assert api.post(URL, {"text": "x"}, "json").status_code == 429


# --- Addresses ------------------------------------------------------------------


def is_throttled(rates, first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether the second request counts against the first one's quota."""
    rates(submit=1)
    body = b'{"text": "x"}'
    assert post(body, **first).status_code == 201
    return post(body, **second).status_code == 429


def test_without_a_proxy_nobody_chooses_their_address(rates):
    assert REST_FRAMEWORK["NUM_PROXIES"] == 0
    first, second = ({"HTTP_X_FORWARDED_FOR": f"192.0.2.{i}"} for i in (1, 2))
    assert is_throttled(rates, first, second)


@pytest.mark.parametrize(
    ("count", "first", "second", "same"),
    [
        (1, "192.0.2.1", "192.0.2.2", False),
        # What the client wrote comes before what the proxy wrote.
        (1, "1.1.1.1, 192.0.2.1", "2.2.2.2, 192.0.2.1", True),
        (2, "1.1.1.1, 192.0.2.1, 10.0.0.1", "2.2.2.2, 192.0.2.1, 10.0.0.1", True),
        (2, "192.0.2.1, 10.0.0.1", "192.0.2.2, 10.0.0.1", False),
        # Each customer has a whole IPv6 network.
        (1, "2001:db8::1", "2001:db8::ffff:2", True),
        (1, "2001:db8::1", "2001:db8:0:1::1", False),
        (1, "::ffff:192.0.2.1", "192.0.2.1", True),
        (1, "::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        # Not addresses: all of these count as the proxy's own.
        (1, "192.0.2.1:4711", "192.0.2.1:4712", True),
        (1, "x" * 300, "y y", True),
    ],
)
def test_behind_proxies_the_address_is_the_one_they_saw(
    rates, proxies, count, first, second, same
):
    proxies(count)
    pair = ({"HTTP_X_FORWARDED_FOR": each} for each in (first, second))
    assert is_throttled(rates, *pair) is same


# --- The digests ----------------------------------------------------------------


def waiting(count: int, text: str) -> None:
    rows = (PrayerRequest(text=text, name="Ann") for _ in range(count))
    PrayerRequest.objects.bulk_create(rows, batch_size=500)


@pytest.mark.parametrize("text", ["\U0001f64f" * 2000, "x" * 2000, "<" * 2000])
def test_a_moderator_digest_is_bounded(staff, subscribe, settings, text):
    settings.SITE_URL = "https://pray.example.org"
    subscribe("moderator", staff)
    waiting(1000, text)
    PrayerRequest.objects.create(text="It was public", status="flagged")
    tracemalloc.start()
    try:
        assert tasks.send_moderator_digest.apply(task_id="task").get() == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (message,) = mail.outbox
    assert peak < 10e6, f"{peak / 1e6} MB"
    assert len(message.message().as_bytes()) < 400_000
    assert message.subject == "Prayer room: 1001 requests to look at"
    link = "https://pray.example.org/admin/prayer_room_api/prayerrequest/"
    html = message.alternatives[0][0]
    assert f"\n\n{1001 - digests.SHOWN} more waiting: <{link}>\n" in message.body
    assert f'{1001 - digests.SHOWN} more waiting: <a href="{link}">' in html
    # What was public comes first.
    assert "It was public" in message.body


def test_the_link_of_the_digest_leads_to_what_waits(
    admin_client, staff, subscribe, settings
):
    settings.SITE_URL = "https://pray.example.org"
    subscribe("moderator", staff)
    waiting(digests.SHOWN + 1, "Peace")
    PrayerRequest.objects.create(text="Old", status="archived")
    assert tasks.send_moderator_digest.apply(task_id="task").get() == 1
    link = mail.outbox[0].body.partition("more waiting: <")[2].partition(">")[0]
    page = admin_client.get(link.removeprefix("https://pray.example.org"))
    assert page.status_code == 200
    assert page.context["cl"].result_count >= digests.SHOWN + 1


def test_a_digest_that_shows_all_says_nothing_of_more(staff, subscribe):
    subscribe("moderator", staff)
    waiting(digests.SHOWN, "Peace")
    assert tasks.send_moderator_digest.apply(task_id="task").get() == 1
    assert mail.outbox[0].body.count("Peace") == digests.SHOWN
    assert "more" not in mail.outbox[0].body


@pytest.mark.parametrize(("text", "longest"), [("word " * 300, 150), ("x" * 2000, 250)])
def test_long_lines_wrap(staff, subscribe, text, longest):
    subscribe("moderator", staff)
    waiting(2, text)
    assert tasks.send_moderator_digest.apply(task_id="task").get() == 1
    (message,) = mail.outbox
    assert max(map(len, message.body.splitlines())) < longest
    assert "overflow-wrap: anywhere" in message.alternatives[0][0]


def test_a_digest_of_responses_is_bounded_and_loses_none(
    person, subscribe, answered, monkeypatch
):
    monkeypatch.setattr(digests, "SHOWN", 3)
    subscribe("daily", person)
    for number in range(7):
        answered(response=f"Answer {number}.")
    for day in ("one", "two", "three", "four"):
        monkeypatch.setattr(digests, "current_period", lambda digest, day=day: day)
        tasks.send_user_digest.apply(["daily"], task_id=day).get()
    bodies = [message.body for message in mail.outbox]
    told = [[n for n in range(7) if f"Answer {n}." in body] for body in bodies]
    assert told == [[0, 1, 2], [3, 4, 5], [6]]
    assert ["4 more will" in bodies[0], "1 more will" in bodies[1]] == [True, True]
    assert "follow" not in bodies[2]
