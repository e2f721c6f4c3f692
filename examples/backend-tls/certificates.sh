#!/bin/sh
# Makes an authority, a server certificate and a client certificate, and the manifests that hand them
# to the gateway. Usage: certificates.sh FOLDER [DAYS]
set -eu
umask 077
folder=$1
days=${2:-30}
mkdir -p "$folder"
cd "$folder"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days "$days" \
  -subj '/CN=backend authority' -addext basicConstraints=critical,CA:TRUE \
  -keyout authority.key -out authority.crt 2>/dev/null

issue() { # name, names and usage
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$1.key" -out "$1.csr" 2>/dev/null
  printf '%s\n' "$2" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA authority.crt -CAkey authority.key -CAcreateserial \
    -days "$days" -extfile "$1.ext" -out "$1.crt" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
issue server 'subjectAltName=DNS:backend.example.test
extendedKeyUsage=serverAuth'
issue client 'extendedKeyUsage=clientAuth'

indented() { sed 's/^/    /' "$1"; }
# Written beside and renamed, so that a gateway that is watching never reads half a file.
{
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: backend-authority\n  namespace: default\n'
  printf 'data:\n  ca.crt: |\n'
  indented authority.crt
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: client-certificate\n  namespace: default\n'
  printf 'type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n'
  indented client.crt
  printf '  tls.key: |\n'
  indented client.key
} > .generated.yaml
mv .generated.yaml generated.yaml
