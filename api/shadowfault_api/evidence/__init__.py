"""Evidence: records written with what they describe, sealed soon after, verified by anyone.

- `record`: one record, its canonical form and its hash; all that the write path needs, so all that is here
- `merkle`, `seal`, `signing`: what a seal is; pure
- `sealer`: seals closed batches; one at a time over all replicas
- `verification`: finds what does not fit; pure, fed from the database (`source`) or a file (`document`)
- `retention`: monthly partitions, and what `shadowfault evidence prune` does
"""

from shadowfault_api.evidence.record import (
    CATEGORY,
    CONTROL_ID,
    DETAIL_FIELDS,
    DetailValue,
    EventType,
    EvidenceError,
    EvidenceRecord,
    Subject,
    content_hash,
    new_record,
    timestamp,
)

__all__ = [
    "CATEGORY",
    "CONTROL_ID",
    "DETAIL_FIELDS",
    "DetailValue",
    "EventType",
    "EvidenceError",
    "EvidenceRecord",
    "Subject",
    "content_hash",
    "new_record",
    "timestamp",
]
