"""What the documents name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shadowfault_api.evidence.record import DETAIL_FIELDS, EventType
from shadowfault_api.shadow.deferral import Deferral
from shadowfault_api.shadow.failures import FailureType
from shadowfault_operator.reasons import Reason
from shadowfault_operator.verdict import Finding
from shadowfault_packaging import metrics, settings
from shadowfault_packaging.endings import PAGE, page

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMED = re.compile(r"`(?:[\w/]*/)?(test_\w+\.py)(?:::(test_\w+))?`")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_tests_a_page_names_exist(path: Path) -> None:
    for file, name in NAMED.findall(path.read_text()):
        found = [path.read_text() for path in ROOT.glob(f"tests/**/{file}")]
        assert found, f"{path.name} names {file}"
        assert any(f"def {name}" in text for text in found), f"{path.name} names {file}::{name}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_links_of_a_page_lead_somewhere(path: Path) -> None:
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert missing == []


def test_the_page_of_endings_is_current() -> None:
    """`make chart-readme` writes it anew."""
    text = PAGE.read_text()
    assert text == page()
    assert all(f"`{reason.title}`" in text for reason in Reason)


def test_every_reason_of_a_verdict_is_explained() -> None:
    text = (ROOT / "docs" / "verdict.md").read_text()
    missing = [one.title for one in Finding if f"| `{one.title}` | {one.result} |" not in text]
    assert missing == []


def test_the_page_of_metrics_is_current() -> None:
    """`make chart-readme` writes it anew."""
    text = metrics.PAGE.read_text()
    assert text == metrics.page()
    # Of both sides, of the process and of the database; the contract's names as they are in the contract.
    for name in (
        "shadowfault_overrun_seconds",
        "shadowfault_missing_permissions",
        "shadow_write_failures_total` | counter | entity_type, operation, failure_type",
        "shadow_discrepancies_total` | counter, *database* | entity_type, discrepancy_type",
        "shadow_discrepancy_last_check_timestamp` | gauge, *database* | entity_type",
        "chaos_injected_faults_total` | counter | entity_type, operation",
        "evidence_last_seal_timestamp_seconds",
    ):
        assert f"| `{name}" in text


def test_the_page_of_settings_is_current() -> None:
    """`make chart-readme` writes it anew."""
    text = settings.PAGE.read_text()
    assert text == settings.page()
    assert "| `SHADOW_TIMEOUT_SECONDS` | `2` | " in text
    assert "| `SHADOWFAULT_NAMESPACES` |  | " in text
    assert "| `POD_NAMESPACE` | `shadowfault-system` | " in text
    assert "None |" not in text, "a variable without a meaning"


def test_every_type_and_detail_of_evidence_is_explained() -> None:
    text = (ROOT / "docs" / "evidence.md").read_text()
    missing = [one.value for one in EventType if f"| `{one}` | `{one.outcome}` |" not in text]
    assert missing == []
    assert [name for name in sorted(DETAIL_FIELDS) if f"`{name}`" not in text] == []


def test_every_reason_for_a_failure_or_a_wait_is_explained() -> None:
    text = (ROOT / "docs" / "dual-write.md").read_text()
    assert [one.value for one in (*FailureType, *Deferral) if f"| `{one.value}` | " not in text] == []


def test_the_pages_the_code_names_exist() -> None:
    named = re.compile(r"docs/[\w/-]+\.(?:md|py)")
    folders = ("api", "charts", "cli", "crds", "deploy", "dev", "operator", "sdk", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) > 300
    found = {page for path in files if path.suffix != ".pyc" for page in named.findall(path.read_text())}
    assert [page for page in sorted(found) if not (ROOT / page).exists()] == []
