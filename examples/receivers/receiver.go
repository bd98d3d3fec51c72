// A receiver that demands a client certificate, and takes those in clients.crt.
//
//	go run receiver.go DIRECTORY HOST:PORT
//
// DIRECTORY holds server.crt, server.key, and as clients.crt the bundle.crt of the ConfigMap
// <name>-client-certificate. It is read anew for each handshake: a new bundle needs no reload.
package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: receiver DIRECTORY HOST:PORT")
	}
	listener, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	configure := func(*tls.ClientHelloInfo) (*tls.Config, error) { return configuration(os.Args[1]) }
	server := http.Server{Handler: http.HandlerFunc(receive), TLSConfig: &tls.Config{GetConfigForClient: configure}}
	log.Printf("listening %s", listener.Addr())
	log.Fatal(server.ServeTLS(listener, "", ""))
}

// receive is called only for a client that is known.
func receive(response http.ResponseWriter, request *http.Request) {
	client := request.TLS.PeerCertificates[0].Subject
	log.Printf("event %s from %s", request.Header.Get("webhook-id"), client)
	response.WriteHeader(http.StatusNoContent)
}

func configuration(directory string) (*tls.Config, error) {
	server, err := tls.LoadX509KeyPair(filepath.Join(directory, "server.crt"), filepath.Join(directory, "server.key"))
	if err != nil {
		return nil, err
	}
	trusted, known, err := clients(filepath.Join(directory, "clients.crt"))
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{server},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    trusted,
		// The authority issues to others, too: only the certificates that are in the bundle themselves are taken.
		VerifyConnection: func(state tls.ConnectionState) error {
			if !known[sha256.Sum256(state.PeerCertificates[0].Raw)] {
				return errors.New("the client's certificate is not in clients.crt")
			}
			return nil
		},
	}, nil
}

// clients returns whom to trust, and the fingerprints of the clients themselves.
func clients(file string) (*x509.CertPool, map[[sha256.Size]byte]bool, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	trusted, known := x509.NewCertPool(), map[[sha256.Size]byte]bool{}
	for block, rest := pem.Decode(rest); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		trusted.AddCert(certificate)
		if !certificate.IsCA {
			known[sha256.Sum256(certificate.Raw)] = true
		}
	}
	return trusted, known, nil
}
