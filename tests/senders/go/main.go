// Sends CloudEvents with the Go SDK: one in binary mode, one in structured mode, and a batch of two.
//
// The URL is the first argument. TOKEN, if set, is the bearer token; CA, if set, is the file of the authority to trust.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func newEvent(mode string) cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetID("go-" + mode)
	event.SetSource("/senders/go")
	event.SetType("order.paid")
	event.SetSubject("Zoë's order, 100 %")
	if err := event.SetData(cloudevents.ApplicationJSON, map[string]string{"mode": mode, "price": "12,50 €"}); err != nil {
		log.Fatal(err)
	}
	return event
}

// bearer adds the token to every request, as an application would.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	if b.token != "" {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(request)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: send URL")
	}
	url := os.Args[1]
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if file := os.Getenv("CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	round := bearer{os.Getenv("TOKEN"), transport}
	client, err := cloudevents.NewClientHTTP(cehttp.WithRoundTripper(round))
	if err != nil {
		log.Fatal(err)
	}
	target := cloudevents.ContextWithTarget(context.Background(), url)
	for mode, ctx := range map[string]context.Context{
		"binary":     cloudevents.WithEncodingBinary(target),
		"structured": cloudevents.WithEncodingStructured(target),
	} {
		if result := client.Send(ctx, newEvent(mode)); !cloudevents.IsACK(result) {
			log.Fatalf("%s: %v", mode, result)
		}
	}
	batch := []cloudevents.Event{newEvent("batch-1"), newEvent("batch-2")}
	request, err := cehttp.NewHTTPRequestFromEvents(target, url, batch)
	if err != nil {
		log.Fatal(err)
	}
	response, err := round.RoundTrip(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	if response.StatusCode != http.StatusAccepted {
		os.Exit(1)
	}
}
