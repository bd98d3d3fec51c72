#!/bin/sh
# Fills the corpus of each fuzz target from tests/keystores. Needs openssl 3. Then, with a nightly toolchain:
#     cargo +nightly fuzz run pkcs12 -- -max_total_time=600 -max_len=16384
# An input that harmed is fixed, and kept in fuzz/cases, which tests/mutations.rs opens on every run.
set -eu
cd "$(dirname "$0")"
stores=../tests/keystores
for target in ber pkcs12 jks trust_store chain; do mkdir -p "corpus/$target"; done
cp "$stores"/*.p12 corpus/pkcs12/
cp "$stores"/*.p12 corpus/ber/
cp "$stores"/*.jks "$stores"/*.jceks corpus/jks/
cp "$stores"/*.p12 "$stores"/*.jks corpus/trust_store/
for store in "$stores"/*.p12; do
    name=$(basename "$store" .p12)
    timeout 5 openssl pkcs12 -legacy -in "$store" -nokeys -passin pass:changeit 2>/dev/null |
        awk '/-----BEGIN/ { on = 1; next } /-----END/ { on = 0; print "" } on { printf "%s", $0 }' |
        while read -r certificate; do printf '%s' "$certificate" | base64 -d; done >"corpus/chain/$name"
    [ -s "corpus/chain/$name" ] || rm "corpus/chain/$name"
done
