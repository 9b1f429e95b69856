# Certificates, made with openssl. Each is NAME.crt with its key in NAME.key.
set -eu
exec 3>&2 2>authority.log
trap '[ $? = 0 ] || cat authority.log >&3' EXIT

cat >kinds.cnf <<END
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[short]
basicConstraints = critical, CA:TRUE, pathlen:0
[other_use_root]
basicConstraints = critical, CA:TRUE
extendedKeyUsage = serverAuth
[crl_root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, cRLSign
[code]
keyUsage = critical, digitalSignature
extendedKeyUsage = codeSigning
[any_use]
extendedKeyUsage = anyExtendedKeyUsage
[no_use]
basicConstraints = CA:FALSE
[fulcio]
keyUsage = critical, digitalSignature
extendedKeyUsage = codeSigning
subjectAltName = critical, email:owner@example.org
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://issuer.example
1.3.6.1.4.1.57264.1.1 = DER:68747470733a2f2f6973737565722e6578616d706c65
[fulcio_uri]
extendedKeyUsage = codeSigning
subjectAltName = critical, URI:https://ci.example/build.yml@refs/heads/main
1.3.6.1.4.1.57264.1.1 = DER:68747470733a2f2f6973737565722e6578616d706c65
[fulcio_name]
extendedKeyUsage = codeSigning
subjectAltName = otherName:1.3.6.1.4.1.57264.1.7;UTF8:robot!example.org
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://issuer.example
1.3.6.1.4.1.57264.1.1 = DER:68747470733a2f2f6973737565722e6578616d706c65
[other_issuer]
extendedKeyUsage = codeSigning
subjectAltName = critical, email:owner@example.org
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://elsewhere.example
[host]
extendedKeyUsage = codeSigning
subjectAltName = DNS:build.example.org, email:owner@example.org
[server]
extendedKeyUsage = serverAuth
END

always='-not_before 20200101000000Z -not_after 20900101000000Z'
past='-not_before 20200101000000Z -not_after 20210101000000Z'
future='-not_before 20890101000000Z -not_after 20900101000000Z'

# key NAME
key() { [ -e $1.key ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $1.key; }
# request NAME
request() { key $1; openssl req -new -config /dev/null -key $1.key -subj /CN=$1 -out $1.csr; }
# itself NAME KIND WHEN: signed by its own key
itself() { request $1; openssl x509 -req -in $1.csr -signkey $1.key -extfile kinds.cnf -extensions $2 $3 -out $1.crt; }
# under ROOT NAME KIND WHEN: signed by another
under() {
    request $2
    openssl x509 -req -in $2.csr -CA $1.crt -CAkey $1.key -extfile kinds.cnf -extensions $3 $4 -out $2.crt
}
