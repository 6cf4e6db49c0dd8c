"""/api/listings as a user sees it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shadowfault_testing.service import Service

PROBLEM = "application/problem+json"


async def test_a_listing_lives_through_its_whole_life(service: Service) -> None:
    created = await service.client.post("/api/listings", json={"title": "Test", "price": 1500})
    assert created.status_code == 201
    listing = created.json()
    assert created.headers["location"] == f"/api/listings/{listing['id']}"
    assert UUID(listing["id"]).version == 7
    assert (listing["title"], listing["price"], listing["version"]) == ("Test", 1500, 1)

    path = f"/api/listings/{listing['id']}"
    assert (await service.client.get(path)).json() == listing

    patched = await service.client.patch(path, json={"price": 1450.5})
    assert patched.status_code == 200
    assert (patched.json()["title"], patched.json()["price"], patched.json()["version"]) == (
        "Test",
        1450.5,
        2,
    )
    assert patched.headers["etag"] == '"2"'

    assert (await service.client.delete(path)).status_code == 204
    for gone in (
        await service.client.get(path),
        await service.client.patch(path, json={"price": 1}),
        await service.client.delete(path),
        await service.client.post(f"{path}/views"),
        await service.client.get(f"{path}/views"),
    ):
        assert (gone.status_code, gone.headers["content-type"]) == (404, PROBLEM)


@pytest.mark.parametrize("price", ["0", "0.01", "0.1", "19.99", "1500", "9999999999.99"])
async def test_a_price_is_exact_in_both_stores_and_in_the_answer(service: Service, price: str) -> None:
    answer = await service.client.post(
        "/api/listings",
        content=f'{{"title": "Test", "price": {price}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 201
    assert Decimal(str(answer.json()["price"])) == Decimal(price)
    await service.settled()
    ((_, stored, _),) = service.shadow_listings().values()
    assert stored == Decimal(price)
    again = await service.client.get(answer.headers["location"])
    assert Decimal(str(again.json()["price"])) == Decimal(price)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"price": 1}, "/title"),
        ({"title": "Test"}, "/price"),
        ({"title": "", "price": 1}, "/title"),
        ({"title": "x" * 201, "price": 1}, "/title"),
        ({"title": "nul\x00", "price": 1}, "/title"),
        ({"title": 5, "price": 1}, "/title"),
        ({"title": None, "price": 1}, "/title"),
        ({"title": "Test", "price": "1500"}, "/price"),
        ({"title": "Test", "price": True}, "/price"),
        ({"title": "Test", "price": -0.01}, "/price"),
        ({"title": "Test", "price": 0.001}, "/price"),
        ({"title": "Test", "price": 1e12}, "/price"),
        ({"title": "Test", "price": 1, "colour": "red"}, "/colour"),
        ([], ""),
    ],
)
async def test_a_wrong_body_is_refused_and_the_pointer_says_where(
    service: Service, body: Any, pointer: str
) -> None:
    answer = await service.client.post("/api/listings", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert service.primary("SELECT * FROM listings") == []


@pytest.mark.parametrize("price", ["NaN", "Infinity", "1e400", "-Infinity"])
async def test_a_price_that_is_no_number_is_refused(service: Service, price: str) -> None:
    answer = await service.client.post(
        "/api/listings",
        content=f'{{"title": "Test", "price": {price}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in {400, 422}
    assert answer.headers["content-type"] == PROBLEM


async def test_malformed_json_is_a_400_problem(service: Service) -> None:
    answer = await service.client.post(
        "/api/listings", content=b'{"title": "secret', headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert "secret" not in answer.text


@pytest.mark.parametrize("body", [{}, {"title": None}, {"price": None}, {"version": 7}])
async def test_a_patch_must_change_something(service: Service, body: Any) -> None:
    listing = await service.create()
    answer = await service.client.patch(f"/api/listings/{listing['id']}", json=body)
    assert answer.status_code == 422
    assert (await service.client.get(f"/api/listings/{listing['id']}")).json() == listing


async def test_unknown_paths_methods_and_ids_are_problems(service: Service) -> None:
    nowhere = await service.client.get("/api/nowhere")
    assert (nowhere.status_code, nowhere.headers["content-type"]) == (404, PROBLEM)
    put = await service.client.put("/api/listings")
    assert (put.status_code, put.headers["content-type"]) == (405, PROBLEM)
    assert "POST" in put.headers["allow"]
    odd = await service.client.get("/api/listings/not-a-uuid")
    assert (odd.status_code, odd.json()["errors"][0]["parameter"]) == (422, "listing_id")
    missing = await service.client.get(f"/api/listings/{uuid4()}")
    assert missing.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no listing with this id.",
        "instance": missing.request.url.path,
        "requestId": missing.headers["x-request-id"],
    }


async def test_a_body_too_large_is_refused_however_it_is_sent(service: Service) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    answer = await service.client.post(
        "/api/listings", content=chunks(), headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)


async def test_if_match_guards_against_a_lost_update(service: Service) -> None:
    listing = await service.create()
    path = f"/api/listings/{listing['id']}"
    assert (
        await service.client.patch(path, json={"price": 2}, headers={"if-match": '"1"'})
    ).status_code == 200
    for stale in (
        await service.client.patch(path, json={"price": 3}, headers={"if-match": '"1"'}),
        await service.client.delete(path, headers={"if-match": '"1"'}),
    ):
        assert stale.status_code == 412
    assert (await service.client.get(path)).json()["price"] == 2
    assert (await service.client.delete(path, headers={"if-match": "2"})).status_code == 422
    assert (await service.client.delete(path, headers={"if-match": '"2"'})).status_code == 204


async def test_pages_give_every_listing_once_oldest_first(service: Service) -> None:
    created = [(await service.create(f"Listing {n}"))["id"] for n in range(5)]
    seen: list[str] = []
    after: str | None = None
    while True:
        parameters = {"limit": 2} | ({"after": after} if after else {})
        page = (await service.client.get("/api/listings", params=parameters)).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == sorted(created)
    for limit in (0, 201, "many"):
        assert (await service.client.get("/api/listings", params={"limit": limit})).status_code == 422


async def test_views_are_counted(service: Service) -> None:
    listing = await service.create()
    path = f"/api/listings/{listing['id']}/views"
    assert (await service.client.get(path)).json() == {"views": 0}
    for _ in range(3):
        assert (await service.client.post(path)).status_code == 202
    assert (await service.client.get(path)).json() == {"views": 3}


async def test_a_request_id_comes_back_and_one_is_made_where_none_is_sent(service: Service) -> None:
    listing = await service.client.post(
        "/api/listings", json={"title": "Test", "price": 1}, headers={"x-request-id": "run-1:0001"}
    )
    assert listing.headers["x-request-id"] == "run-1:0001"
    made = (await service.client.get("/health")).headers["x-request-id"]
    assert UUID(made)
    assert made != (await service.client.get("/health")).headers["x-request-id"]


@pytest.mark.parametrize("sent", ["", "x" * 129, "two words", "someone@example.org", "päth"])
async def test_a_request_id_that_cannot_be_kept_is_refused_and_nothing_is_written(
    service: Service, sent: str
) -> None:
    answer = await service.client.post(
        "/api/listings", json={"title": "Test", "price": 1}, headers={"x-request-id": sent.encode("latin-1")}
    )
    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert answer.headers["x-request-id"] != sent
    assert service.primary("SELECT * FROM listings") == []
