#!/usr/bin/env python3
"""Writes the seeds of sif_reader to ../fixtures/corpus/sif_reader: whole containers with tables so small and so near to the
header that a fuzzer soon changes what matters. Written from the format's description, not with our writer."""
import hashlib
import pathlib
import struct

MARK = 0xF0000000
OUT = pathlib.Path(__file__).parent.parent / "fixtures/corpus/sif_reader"


def sif(objects, slots, arch=b"02\0", launch=b"#!/usr/bin/env run-singularity\n", table=128):
    """objects: (type, group, link, alignment, name, extra, bytes)"""
    data_offset = table + 585 * slots
    rows, body = b"", b""
    for number, (kind, group, link, alignment, name, extra, data) in enumerate(objects, 1):
        end = data_offset + len(body)
        start = -(-end // alignment) * alignment
        body += bytes(start - end) + data
        places = (start, len(data), start - end + len(data))
        rows += struct.pack("<iBIII7q", kind, 1, number, group | MARK, link, *places, 1, 1, 0, 0)
        rows += name.ljust(128, b"\0") + extra.ljust(384, b"\0")
    rows = rows.ljust(585 * slots, b"\0")
    header = launch.ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + arch + bytes(16)
    header += struct.pack("<8q", 1, 1, slots - len(objects), slots, table, 585 * slots, data_offset, len(body))
    return header.ljust(table, b"\0") + rows + body


def digest(data):
    return b"sha256:" + hashlib.sha256(data).hexdigest().encode()


definition = (0x4001, 1, 0, 1, b"", b"", b"bootstrap: docker\nfrom: a\n\n")
metadata = (0x4006, 1, 0, 1, b"inspect-metadata.json", b"", b'{"type":"container"}')
system = (0x4004, 1, 0, 512, b"", struct.pack("<ii", 1, 2) + b"02\0", b"hsqs" + bytes(508))
overlay = (0x4004, 1, 0, 512, b"", struct.pack("<ii", 2, 4) + b"02\0", bytes(1080) + b"\x53\xef" + bytes(454))
signature = (0x4005, 0, 1 | MARK, 1, b"", struct.pack("<i", 1) + bytes(range(1, 21)), b"-----BEGIN")
key = (0x4008, 1, 3, 1, b"", struct.pack("<ii", 2, 0x200), b"-----BEGIN")
sbom = (0x4009, 1, 3, 1, b"", struct.pack("<i", 4), b"{}")
index = b'{"schemaVersion":2,"manifests":[]}'
second = 128 + 4 * 585 + len(definition[-1])
seeds = {
    "container": sif([definition, metadata, system], 4),
    "signed-with-overlay": sif([definition, metadata, system, key, sbom, overlay, signature], 8),
    "oci": sif([(0x400B, 0, 0, 1, b"", digest(b"{}"), b"{}"), (0x400A, 0, 0, 1, b"", digest(index), index)], 3, b"00\0", b""),
    "not-a-sif": b"#!/bin/sh\n",
    "cut-short": sif([definition, metadata, system], 4)[:3000],
    "overlapping": sif([definition, metadata, system], 4).replace(struct.pack("<q", second), struct.pack("<q", second - 1)),
}
OUT.mkdir(parents=True, exist_ok=True)
for name, data in seeds.items():
    (OUT / name).write_bytes(data)
