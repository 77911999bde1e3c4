import pytest

from prayer_room_api.models import PrayerRequest, TransitionRefusedError
from prayer_room_api.serializers import PublicSerializer

pytestmark = pytest.mark.django_db

URL = "/api/requests/"
Status = PrayerRequest.Status
PRIVATE = {"author", "response", "responded_by", "responded_at", "flag_count"}


def make(status=Status.APPROVED, **fields) -> PrayerRequest:
    return PrayerRequest.objects.create(**{"text": "Peace", "status": status, **fields})


def test_anyone_posts_a_request_and_it_is_pending(api):
    answer = api.post(URL, {"text": " Peace ", "name": "Ann", "kind": "praise"}, "json")
    assert answer.status_code == 201
    request = PrayerRequest.objects.get(pk=answer.data["id"])
    assert (request.text, request.name, request.kind) == ("Peace", "Ann", "praise")
    assert request.status == Status.PENDING
    assert request.author is None


def test_who_is_logged_in_is_the_author(api, person):
    api.force_login(person)
    answer = api.post(URL, {"text": "Peace"}, "json")
    assert PrayerRequest.objects.get(pk=answer.data["id"]).author == person


def test_a_password_will_do(api, person):
    api.credentials(HTTP_AUTHORIZATION="Basic YW5uOnNlY3JldA==")  # ann:secret
    assert api.post(URL, {"text": "Peace"}, "json").status_code == 201
    assert PrayerRequest.objects.get().author == person


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "text"),
        ({"text": "  "}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"text": "x", "name": "y" * 101}, "name"),
        ({"text": "x", "kind": "curse"}, "kind"),
    ],
)
def test_what_is_posted_is_validated(api, fields, wrong):
    answer = api.post(URL, fields, "json")
    assert answer.status_code == 400
    assert list(answer.data) == [wrong]
    assert not PrayerRequest.objects.exists()


def test_what_the_browsable_api_begins_with_is_accepted(api):
    begun = PublicSerializer().data
    assert begun["kind"] == "prayer"
    written = {**begun, "text": "Peace"}
    assert api.post("/api/requests/", written, format="json").status_code == 201


def test_nobody_approves_their_own_by_posting(api):
    fields = {"text": "x", "status": "approved", "response": "y", "flag_count": 3}
    api.post(URL, fields, "json")
    request = PrayerRequest.objects.get()
    assert (request.status, request.response, request.flag_count) == ("pending", "", 0)


def test_the_list_has_the_approved_ones_newest_first_and_nothing_private(api, person):
    first, second = make(author=person, response="secret"), make()
    for status in (Status.PENDING, Status.FLAGGED, Status.ARCHIVED):
        make(status)
    answer = api.get(URL)
    assert [each["id"] for each in answer.data["results"]] == [second.pk, first.pk]
    assert not PRIVATE & set(answer.data["results"][0])


def test_the_list_is_paginated(api):
    for _ in range(21):
        make()
    first = api.get(URL)
    assert (first.data["count"], len(first.data["results"])) == (21, 20)
    assert len(api.get(first.data["next"]).data["results"]) == 1


@pytest.mark.parametrize("status", [Status.PENDING, Status.FLAGGED, Status.ARCHIVED])
def test_what_is_not_approved_is_seen_by_staff_only(api, staff_api, status):
    request = make(status)
    assert api.get(f"{URL}{request.pk}/").status_code == 404
    assert api.get(URL, {"status": status}).status_code in (401, 403)
    assert staff_api.get(f"{URL}{request.pk}/").status_code == 200
    listed = staff_api.get(URL, {"status": status}).data["results"]
    assert [each["id"] for each in listed] == [request.pk]
    assert set(listed[0]) >= PRIVATE


def test_an_approved_request_is_read_by_anyone_without_what_is_private(api):
    answer = api.get(f"{URL}{make().pk}/")
    assert answer.status_code == 200
    assert not PRIVATE & set(answer.data)


def test_a_status_that_there_is_not(staff_api):
    answer = staff_api.get(URL, {"status": "lost"})
    assert answer.status_code == 400
    assert "pending" in str(answer.data["status"])


def test_anyone_flags_an_approved_request_off_the_list(api):
    request = make()
    assert api.post(f"{URL}{request.pk}/flag/").status_code == 204
    assert api.post(f"{URL}{request.pk}/flag/").status_code == 204
    request.refresh_from_db()
    assert (request.status, request.flag_count) == (Status.FLAGGED, 2)
    assert api.get(URL).data["results"] == []


def test_what_the_team_has_approved_after_a_flag_stays_on_the_list(api, staff_api):
    request = make()
    url = f"{URL}{request.pk}/"

    def flag() -> PrayerRequest:
        assert api.post(f"{url}flag/").status_code == 204
        request.refresh_from_db()
        return request

    assert flag().status == Status.FLAGGED
    assert request in PrayerRequest.objects.waiting()
    assert staff_api.post(f"{url}approve/").status_code == 200
    assert request not in PrayerRequest.objects.waiting()

    assert (flag().status, request.flag_count) == (Status.APPROVED, 2)
    assert len(api.get(URL).data["results"]) == 1
    assert request in PrayerRequest.objects.waiting()
    since = request.waiting_since
    assert since is not None
    # However often it is flagged, it has waited since the first flag.
    assert (flag().waiting_since, request.flag_count) == (since, 3)

    # The team keeps it on the list, and later takes it off.
    assert staff_api.post(f"{url}approve/").data["flagged_again_at"] is None
    assert request not in PrayerRequest.objects.waiting()
    assert staff_api.post(f"{url}approve/").status_code == 409
    flag()
    assert staff_api.post(f"{url}archive/").data["flagged_again_at"] is None
    assert request not in PrayerRequest.objects.waiting()


def test_of_two_who_flag_at_once_both_are_counted():
    request = make()
    other = PrayerRequest.objects.get(pk=request.pk)
    request.flag()
    other.flag()
    assert (other.status, other.flag_count) == (Status.FLAGGED, 2)
    other.move_to(Status.ARCHIVED)
    with pytest.raises(TransitionRefusedError, match="archived cannot be flagged"):
        request.flag()


@pytest.mark.parametrize("status", [Status.PENDING, Status.ARCHIVED])
def test_what_was_never_public_cannot_be_flagged(api, status):
    request = make(status)
    assert api.post(f"{URL}{request.pk}/flag/").status_code == 404
    request.refresh_from_db()
    assert (request.status, request.flag_count) == (status, 0)


@pytest.mark.parametrize("action", ["approve", "archive", "respond"])
def test_the_team_s_actions_are_the_team_s(api, person, action):
    request = make(Status.PENDING)
    url = f"{URL}{request.pk}/{action}/"
    assert api.post(url, {"response": "x"}, "json").status_code == 401
    api.force_authenticate(person)
    assert api.post(url, {"response": "x"}, "json").status_code == 403
    request.refresh_from_db()
    assert (request.status, request.response) == (Status.PENDING, "")


@pytest.mark.parametrize(
    ("action", "before", "after", "code"),
    [
        ("approve", Status.PENDING, Status.APPROVED, 200),
        ("approve", Status.FLAGGED, Status.APPROVED, 200),
        ("approve", Status.ARCHIVED, Status.APPROVED, 200),
        ("approve", Status.APPROVED, Status.APPROVED, 409),
        ("archive", Status.PENDING, Status.ARCHIVED, 200),
        ("archive", Status.APPROVED, Status.ARCHIVED, 200),
        ("archive", Status.FLAGGED, Status.ARCHIVED, 200),
        ("archive", Status.ARCHIVED, Status.ARCHIVED, 409),
    ],
)
def test_approve_and_archive(staff_api, action, before, after, code):
    request = make(before)
    since = request.status_changed_at
    answer = staff_api.post(f"{URL}{request.pk}/{action}/")
    assert answer.status_code == code
    request.refresh_from_db()
    assert request.status == after
    assert (request.status_changed_at > since) is (code == 200)


def test_respond(staff_api, staff):
    request = make(Status.PENDING)
    url = f"{URL}{request.pk}/respond/"
    answer = staff_api.post(url, {"response": "We prayed."}, "json")
    assert answer.status_code == 200
    assert answer.data["responded_by"] == "moderator"
    request.refresh_from_db()
    assert (request.response, request.responded_by) == ("We prayed.", staff)
    assert request.responded_at is not None
    assert request.status == Status.PENDING


@pytest.mark.parametrize("body", [{}, {"response": " "}, {"response": "x" * 4001}])
def test_a_response_says_something(staff_api, body):
    request = make()
    answer = staff_api.post(f"{URL}{request.pk}/respond/", body, "json")
    assert answer.status_code == 400
    request.refresh_from_db()
    assert request.responded_at is None


def test_a_session_without_a_csrf_token_changes_nothing(staff):
    from rest_framework.test import APIClient

    client = APIClient(enforce_csrf_checks=True)
    client.force_login(staff)
    request = make(Status.PENDING)
    assert client.post(f"{URL}{request.pk}/approve/").status_code == 403
    request.refresh_from_db()
    assert request.status == Status.PENDING
