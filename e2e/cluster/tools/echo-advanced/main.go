// Command echo-advanced stands in for the image of that name that the mesh
// tests of the conformance suite run in pods. The image itself is built from
// another project and cannot be had here. What the suite uses of it is here:
// servers that say who they are, and, under the name client, a client whose
// output the suite reads (utils/echo/parse.go).
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

const requestTimeout = 10 * time.Second

func main() {
	if filepath.Base(os.Args[0]) == "client" {
		client(os.Args[1:])
		return
	}
	serve(os.Args[1:])
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string         { return strings.Join(*l, ",") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

func serve(args []string) {
	var ports, grpcPorts, tcpPorts, tlsPorts list
	flags := flag.NewFlagSet("echo-advanced", flag.ExitOnError)
	flags.Var(&ports, "port", "serves HTTP there")
	flags.Var(&grpcPorts, "grpc", "serves gRPC there")
	flags.Var(&tcpPorts, "tcp", "sends back there what it is sent")
	flags.Var(&tlsPorts, "tls", "which of the HTTP ports speak TLS")
	flags.String("crt", "", "taken and not used: a certificate is made at start")
	flags.String("key", "", "taken and not used")
	flags.Parse(args)
	if len(ports)+len(grpcPorts)+len(tcpPorts) == 0 {
		ports = list{"8080"}
	}
	for _, port := range ports {
		listener := listen(port)
		for _, secured := range tlsPorts {
			if secured == port {
				listener = tls.NewListener(listener, &tls.Config{
					Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"http/1.1"},
				})
			}
		}
		go func() { log.Fatal(http.Serve(listener, http.HandlerFunc(answer))) }()
	}
	for _, port := range grpcPorts {
		server := grpc.NewServer()
		pb.RegisterGrpcEchoServer(server, &echo{})
		listener := listen(port)
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	for _, port := range tcpPorts {
		go echoBytes(listen(port))
	}
	select {}
}

func listen(port string) net.Listener {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	return listener
}

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "StatusCode=200\nHostname=%s\nMethod=%s\nURL=%s\nProto=%s\nHost=%s\n",
		os.Getenv("HOSTNAME"), r.Method, r.URL, r.Proto, r.Host)
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "IP=%s\n", address)
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			fmt.Fprintf(w, "RequestHeader=%s:%s\n", name, value)
		}
	}
}

type echo struct{ pb.UnimplementedGrpcEchoServer }

func (*echo) Echo(ctx context.Context, _ *pb.EchoRequest) (*pb.EchoResponse, error) {
	found, _ := metadata.FromIncomingContext(ctx)
	var headers []*pb.Header
	for name, values := range found {
		for _, value := range values {
			headers = append(headers, &pb.Header{Key: name, Value: value})
		}
	}
	return &pb.EchoResponse{Assertions: &pb.Assertions{
		FullyQualifiedMethod: "/gateway_api_conformance.echo_basic.grpcecho.GrpcEcho/Echo",
		Headers:              headers,
		Context:              &pb.Context{Pod: os.Getenv("HOSTNAME")},
	}}, nil
}

func echoBytes(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer connection.Close()
			fmt.Fprintf(connection, "Hostname=%s\n", os.Getenv("HOSTNAME"))
			io.Copy(connection, connection)
		}()
	}
}

// certificate makes one for this pod, signed by itself.
func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "echo"}, DNSNames: []string{"echo"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
	}
	chain, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{chain}, PrivateKey: key}
}

// client sends requests one after the other and prints what came back, one
// block for each.
func client(args []string) {
	// The address comes first, flags follow.
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		log.Fatal("usage: client URL [--method=METHOD] [--count=N] [-H NAME:VALUE]...")
	}
	var headers list
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	method := flags.String("method", "GET", "HTTP method")
	count := flags.Int("count", 1, "how many requests")
	flags.Var(&headers, "H", "field, NAME:VALUE")
	flags.Parse(args[1:])
	target, err := url.Parse(args[0])
	if err != nil {
		log.Fatal(err)
	}
	send := sendHTTP(target, *method, headers)
	if target.Scheme == "grpc" {
		send = sendGRPC(target, headers)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for i := range *count {
		fmt.Fprintf(out, "[%d] Url=%s\n", i, target)
		if err := send(i, out); err != nil {
			out.Flush()
			log.Fatal(err)
		}
		fmt.Fprintln(out)
	}
}

type sender func(int, io.Writer) error

func sendHTTP(target *url.URL, method string, headers list) sender {
	client := &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(i int, out io.Writer) error {
		request, err := http.NewRequest(method, target.String(), nil)
		if err != nil {
			return err
		}
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ":")
			if strings.EqualFold(name, "host") {
				request.Host = value
			} else {
				request.Header.Add(name, value)
			}
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		fmt.Fprintf(out, "[%d] StatusCode=%d\n", i, response.StatusCode)
		for name, values := range response.Header {
			for _, value := range values {
				fmt.Fprintf(out, "[%d] ResponseHeader=%s:%s\n", i, name, value)
			}
		}
		body, err := io.ReadAll(response.Body)
		for _, line := range strings.Split(strings.TrimSpace(string(body)), "\n") {
			if line != "" {
				fmt.Fprintf(out, "[%d body] %s\n", i, line)
			}
		}
		return err
	}
}

func sendGRPC(target *url.URL, headers list) sender {
	connection, err := grpc.NewClient(target.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	client := pb.NewGrpcEchoClient(connection)
	return func(i int, out io.Writer) error {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		for _, header := range headers {
			name, value, _ := strings.Cut(header, ":")
			ctx = metadata.AppendToOutgoingContext(ctx, name, value)
		}
		response, err := client.Echo(ctx, &pb.EchoRequest{})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "[%d] StatusCode=200\n[%d body] Hostname=%s\n", i, i, response.GetAssertions().GetContext().GetPod())
		for _, header := range response.GetAssertions().GetHeaders() {
			fmt.Fprintf(out, "[%d body] RequestHeader=%s:%s\n", i, header.Key, header.Value)
		}
		return nil
	}
}
