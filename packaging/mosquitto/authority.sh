#!/bin/sh
# A certificate authority for a pilot, in this folder: `authority.sh new`, `broker NAME`, `client NAME`, `revoke NAME`.
set -eu

days=825
crl_days=3650

# openssl ca wants its settings as a file.
settings() {
  cat <<END
[ca]
default_ca = tillwatch
[tillwatch]
database = authority/index.txt
serial = authority/serial
crlnumber = authority/crlnumber
new_certs_dir = authority/issued
certificate = ca.pem
private_key = authority/ca.key.pem
default_md = sha256
default_days = $days
default_crl_days = $crl_days
policy = name
unique_subject = no
[name]
commonName = supplied
[req]
distinguished_name = nothing
[nothing]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[broker]
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:${1:-localhost}
[client]
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
END
}

key() { (umask 077 && openssl ecparam -name prime256v1 -genkey -noout -out "$1"); }

crl() { openssl ca -config authority/settings -gencrl -out tillwatch-crl.pem; }

issue() { # FILE NAME KIND
  key "$1.key.pem"
  openssl req -new -config authority/settings -key "$1.key.pem" -subj "/CN=$2" -out authority/request.pem
  openssl ca -batch -notext -config authority/settings -extensions "$3" -in authority/request.pem -out "$1.pem"
}

case "${1:-} ${2:-}" in
  "new ")
    mkdir authority authority/issued
    : > authority/index.txt
    echo 01 | tee authority/serial > authority/crlnumber
    settings > authority/settings
    key authority/ca.key.pem
    openssl req -new -x509 -config authority/settings -extensions authority -key authority/ca.key.pem \
      -days "$crl_days" -subj "/CN=Tillwatch" -out ca.pem
    crl ;;
  "broker "?*) settings "$2" > authority/settings && issue broker "$2" broker ;;
  "client "?*) settings > authority/settings && issue "$2" "$2" client ;;
  "revoke "?*) openssl ca -config authority/settings -revoke "$2.pem" && crl ;;
  *) echo "usage: $0 new | broker NAME | client NAME | revoke NAME" >&2 && exit 2 ;;
esac
