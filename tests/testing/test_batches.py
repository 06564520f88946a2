import io
import json

import openai
import pytest

from chainops.testing import ManualClock, ModelServer, Status
from chainops.testing.wire import uploaded


def client_of(server):
    return openai.OpenAI(base_url=server.url, api_key="sk-test", max_retries=0)


def line(number, text=None, **more):
    body = {"model": "m", "messages": [{"role": "user", "content": text or f"question {number}"}]}
    return {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def jsonl(lines):
    return "\n".join(json.dumps(each) for each in lines).encode()


def submit(client, lines, **more):
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("rows.jsonl", io.BytesIO(content)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def rows_of(client, file_id):
    return {row["custom_id"]: row for row in map(json.loads, client.files.content(file_id).text.splitlines())}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def server():
    with ModelServer() as running:
        yield running


def test_files_are_kept_listed_read_and_deleted(server):
    client = client_of(server)
    content = b'{"a": 1}\r\n--boundary\r\n\x00\xff'
    file = client.files.create(file=("rows.jsonl", io.BytesIO(content)), purpose="batch")
    assert (file.bytes, file.filename, file.purpose, file.status) == (len(content), "rows.jsonl", "batch", "processed")
    assert client.files.content(file.id).content == content
    assert client.files.retrieve(file.id) == file
    other = client.files.create(file=("notes.txt", io.BytesIO(b"x")), purpose="user_data")
    assert [each.id for each in client.files.list()] == [other.id, file.id]
    assert [each.id for each in client.files.list(purpose="batch")] == [file.id]
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.content(file.id)
    assert client.files.create(file=("b", io.BytesIO(b"x")), purpose="batch").id not in {file.id, other.id}


def test_a_batch_is_answered_line_by_line(server):
    client = client_of(server)
    batch = submit(client, [line(n) for n in range(5)], metadata={"run": "r1"})
    assert (batch.status, batch.metadata) == ("validating", {"run": "r1"})
    done = client.batches.retrieve(batch.id)
    assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", 5, None)
    rows = rows_of(client, done.output_file_id)
    assert list(rows) != sorted(rows)  # whoever relies on the order should notice
    for number in range(5):
        response = rows[f"row-{number}"]["response"]
        assert response["status_code"] == 200
        assert response["body"]["choices"][0]["message"]["content"] == f"question {number}"
        assert response["body"]["usage"]["total_tokens"] == 4
    assert [each.path for each in server.calls(path="/v1/chat/completions")] == []


def test_a_batch_goes_through_its_states_in_time(clock):
    with ModelServer("x", batch_delay_s=100, clock=clock) as server:
        client = client_of(server)
        batch = submit(client, [line(1)])
        seen = []
        for _ in range(6):
            now = client.batches.retrieve(batch.id)
            seen.append(now.status)
            clock.advance(24)
        assert seen == ["validating", *["in_progress"] * 3, "finalizing", "completed"]
        assert now.in_progress_at < now.completed_at
        assert now.request_counts.total == 1


def test_a_batch_without_a_time_waits_to_be_ended():
    with ModelServer("x", batch_delay_s=None) as server:
        client = client_of(server)
        first, second = submit(client, [line(1)]), submit(client, [line(1), line(2)])
        assert client.batches.retrieve(first.id).status == "in_progress"
        server.finish_batches(first.id)
        assert client.batches.retrieve(first.id).status == "completed"
        server.finish_batches(end="expired", share=0.5)
        late = client.batches.retrieve(second.id)
        assert (late.status, late.request_counts.completed, late.request_counts.failed) == ("expired", 1, 1)
        assert list(rows_of(client, late.output_file_id)) == ["row-1"]
        error = rows_of(client, late.error_file_id)["row-2"]
        assert (error["response"], error["error"]["code"]) == (None, "batch_expired")


def test_lines_fail_on_their_own(server):
    client = client_of(server)
    server.fail_lines(lambda custom_id: custom_id == "row-1", Status(429))
    bad = line(2)
    del bad["body"]["messages"]
    done = client.batches.retrieve(submit(client, [line(0), line(1), bad]).id)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 1, 2)
    errors = rows_of(client, done.error_file_id)
    assert {name: row["response"]["status_code"] for name, row in errors.items()} == {"row-1": 429, "row-2": 400}
    assert errors["row-1"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"not json", "invalid_json_line"),
        (jsonl([line(1), line(1)]), "duplicate_custom_id"),
        (jsonl([line(1, url="/v1/embeddings")]), "mismatched_endpoint"),
        (jsonl([{"method": "POST"}]), "missing_required_parameter"),
    ],
)
def test_a_bad_input_fails_the_whole_batch(server, content, code):
    client = client_of(server)
    failed = client.batches.retrieve(submit(client, content).id)
    assert failed.status == "failed"
    assert failed.errors.data[0].code == code
    assert (failed.output_file_id, failed.error_file_id) == (None, None)


def test_a_batch_of_nothing_that_exists_is_refused(server):
    with pytest.raises(openai.BadRequestError, match="file-9"):
        client_of(server).batches.create(
            input_file_id="file-9", endpoint="/v1/chat/completions", completion_window="24h"
        )


def test_a_cancelled_batch_is_over_and_cannot_be_cancelled_again():
    with ModelServer("x", batch_delay_s=None) as server:
        client = client_of(server)
        batch = submit(client, [line(1)])
        assert client.batches.cancel(batch.id).status == "cancelling"
        assert client.batches.retrieve(batch.id).status == "cancelled"
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)


def test_batches_are_listed_newest_first_page_by_page(server):
    client = client_of(server)
    ids = [submit(client, [line(1)], metadata={"n": str(n)}).id for n in range(5)]
    page = client.batches.list(limit=2)
    assert ([each.id for each in page.data], page.has_more) == (ids[:-3:-1], True)
    assert [each.id for each in client.batches.list(limit=2)] == ids[::-1]


def test_another_server_finds_the_batches_and_gives_no_id_twice(tmp_path):
    with ModelServer("x", batch_delay_s=None, state_dir=tmp_path) as server:
        client = client_of(server)
        batch = submit(client, [line(1)], metadata={"run": "r1"})
        last = client.files.create(file=("b", io.BytesIO(b"x")), purpose="batch").id
        client.files.delete(last)
    with ModelServer("x", batch_delay_s=0, state_dir=tmp_path) as server:
        client = client_of(server)
        done = client.batches.retrieve(batch.id)
        assert (done.status, done.metadata) == ("completed", {"run": "r1"})
        assert done.output_file_id not in {batch.input_file_id, last}
        assert rows_of(client, done.output_file_id)["row-1"]["response"]["status_code"] == 200


def test_faults_hit_files_and_batches_too(server):
    server.rule(lambda request: request.path == "/v1/batches" and request.method == "POST", Status(503))
    with pytest.raises(openai.InternalServerError):
        submit(client_of(server), [line(1)])
    assert len(client_of(server).files.list().data) == 1


def test_a_form_without_a_file_is_a_bad_request(server):
    assert uploaded("text/plain", b"") is None
    assert uploaded('multipart/form-data; boundary="x"', b"--x\r\n\r\n--x--\r\n") is None
