// Gets tokens with assertions of its own through golang.org/x/oauth2/clientcredentials.
//
//	BROKER_URL=... AUDIENCE=... CLIENT_ID=... KEYS=FOLDER SCOPE='...' go run signed.go
//
// FOLDER is that of make_keys. Each check prints `ok NAME`; the first failure ends the program.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func sign(algorithm string, key any, signed []byte) []byte {
	digest := sha256.Sum256(signed)
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		must(r, err)
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		if algorithm == "RS256" {
			return must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:]))
		}
		options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return must(rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], options))
	}
	panic("no such key")
}

func assertion(algorithm, audience string) string {
	block, _ := pem.Decode(must(os.ReadFile(os.Getenv("KEYS") + "/" + algorithm + ".pem")))
	caller := os.Getenv("CLIENT_ID")
	encode := base64.RawURLEncoding.EncodeToString
	header := must(json.Marshal(map[string]string{"alg": algorithm, "kid": algorithm, "typ": "JWT"}))
	claims := must(json.Marshal(map[string]any{
		"iss": caller, "sub": caller, "aud": audience, "exp": time.Now().Add(time.Minute).Unix(),
	}))
	signed := encode(header) + "." + encode(claims)
	return signed + "." + encode(sign(algorithm, must(x509.ParsePKCS8PrivateKey(block.Bytes)), []byte(signed)))
}

func obtain(algorithm, audience string) (*oauth2.Token, error) {
	config := clientcredentials.Config{
		TokenURL: os.Getenv("BROKER_URL") + "/oauth/token", AuthStyle: oauth2.AuthStyleInParams,
		Scopes: strings.Fields(os.Getenv("SCOPE")),
		EndpointParams: url.Values{
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
			"client_assertion":      {assertion(algorithm, audience)},
		},
	}
	return config.Token(context.Background())
}

func main() {
	for _, algorithm := range []string{"ES256", "RS256", "PS256"} {
		must(obtain(algorithm, os.Getenv("AUDIENCE")))
		fmt.Println("ok", algorithm)
		_, err := obtain(algorithm, os.Getenv("BROKER_URL")+"/oauth/token")
		if err == nil || !strings.Contains(err.Error(), "invalid_client") {
			log.Fatalf("not ok %s for the endpoint: %v", algorithm, err)
		}
		fmt.Println("ok", algorithm, "for the endpoint is refused")
	}
}
