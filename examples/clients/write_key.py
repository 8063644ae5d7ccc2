"""Writes a key and waits for the lock: write_key.py LOCK KEY [INDEX]. Who you are is in the environment (sandbox.env)."""

import json
import os
import sys
import urllib.error
import urllib.request


def write_key(lock, key, index=None):
    body = {"keyUuid": key}
    if index is not None:
        body["keyIndexNumber"] = index
    request = urllib.request.Request(
        f"{os.environ['KEYWRIGHT_URL']}/locks/{lock}/WriteKey",
        data=json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['KEYWRIGHT_TOKEN']}",
            "Content-Type": "application/json",
            "Prefer": "wait=10",
        },
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


if __name__ == "__main__":
    lock, key, *index = sys.argv[1:]
    try:
        print(json.dumps(write_key(lock, key, *map(int, index))))
    except urllib.error.HTTPError as error:
        sys.exit(f"{error.code}: {json.load(error)['message']}")
