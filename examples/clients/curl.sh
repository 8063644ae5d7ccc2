#!/bin/sh
# Writes a key and waits for the lock: curl.sh LOCK KEY [INDEX]. Who you are is in the environment (sandbox.env).
set -eu
lock=$1 key=$2 index=${3:-}
curl --silent --show-error --fail-with-body \
  "$KEYWRIGHT_URL/locks/$lock/WriteKey" \
  --header "Authorization: Bearer $KEYWRIGHT_TOKEN" \
  --header "Content-Type: application/json" \
  --header "Prefer: wait=10" \
  --data "{\"keyUuid\":\"$key\"${index:+,\"keyIndexNumber\":$index}}"
echo
