"""Sends a body of unknown length with requests: generator.py URL TOKEN KEY"""

import json
import sys

import requests


def pieces(key):
    yield b'{"keyUuid":'
    yield json.dumps(key).encode() + b"}"


def main(url, token, key):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    response = requests.post(url, data=pieces(key), headers=headers, timeout=30)
    print(response.status_code, response.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
