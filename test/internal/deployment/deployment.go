// Package deployment runs deploy/docker-compose.yml under a project name of its own, for the tests of it and for the bench.
package deployment

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"
)

// Ports that a node of the machine's owner does not use.
const (
	gatewayPorts      = "18080-18089"
	consumerPorts     = "18090-18099"
	nodePorts         = "17500-17509"
	consumerNodePorts = "17510-17519"
	SwarmPort         = "14001"
)

// Project is one deployment.
type Project struct {
	Name     string
	Files    []string // of compose, the first one first
	Profiles []string // that are on: "consumer"
}

// New is of the files in a folder, docker-compose.yml and those laid over it. Its images have the tag "test".
func New(dir, name string, over ...string) *Project {
	p := &Project{Name: name, Profiles: []string{"consumer"}, Files: []string{filepath.Join(dir, "docker-compose.yml")}}
	for _, f := range over {
		p.Files = append(p.Files, filepath.Join(dir, f))
	}
	return p
}

// Environment is this process's, with ports and tags of tests.
func Environment() []string {
	return append(os.Environ(), "SHALLOT_PUBLISH_GATEWAY_PORTS="+gatewayPorts, "SHALLOT_PUBLISH_CONSUMER_GATEWAY_PORTS="+consumerPorts,
		"SHALLOT_PUBLISH_NODE_PORTS="+nodePorts, "SHALLOT_PUBLISH_CONSUMER_NODE_PORTS="+consumerNodePorts, "SHALLOT_PUBLISH_SWARM=127.0.0.1:"+SwarmPort,
		"SHALLOT_TAG=test", "SHALLOT_VERSION=test")
}

// Compose runs docker compose on the project until ctx ends; the error has what it said on stderr.
func (p *Project) Compose(ctx context.Context, args ...string) (string, error) {
	all := []string{"compose", "-p", p.Name}
	for _, f := range p.Files {
		all = append(all, "-f", f)
	}
	profiles := p.Profiles
	if args[0] == "build" || args[0] == "down" {
		profiles = []string{"consumer", "cli"} // the command runs once, when it is asked to
	}
	for _, name := range profiles {
		all = append(all, "--profile", name)
	}
	cmd := exec.CommandContext(ctx, "docker", append(all, args...)...)
	cmd.Env = Environment()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("docker compose %s: %w\n%s", strings.Join(args, " "), err, Tail(stderr.String(), 4000))
	}
	return stdout.String(), nil
}

// Down removes the project's containers, volumes and networks.
func (p *Project) Down(ctx context.Context) error {
	_, err := p.Compose(ctx, "down", "--volumes", "--remove-orphans")
	return err
}

// Containers of a service, in the order of their numbers.
func (p *Project) Containers(ctx context.Context, service string) ([]string, error) {
	out, err := p.Compose(ctx, "ps", "-aq", service)
	return strings.Fields(out), err
}

// Port is where the machine publishes a port of a service's first container.
func (p *Project) Port(ctx context.Context, service string, port int) (string, error) {
	out, err := p.Compose(ctx, "port", service, fmt.Sprint(port))
	return strings.TrimSpace(out), err
}

// PKI gives a command where the authority is: "pki" or "consumer-pki".
func (p *Project) PKI(ctx context.Context, where string, args ...string) (string, error) {
	return p.Compose(ctx, append([]string{"exec", "-T", where, "shallot", "--home", "/var/lib/shallot"}, args...)...)
}

// Client makes a client's certificate at an authority, writes its three files into dir, and gives what a gRPC client in any language makes of them.
func (p *Project) Client(ctx context.Context, where, name, dir string) (credentials.TransportCredentials, error) {
	archive, err := p.PKI(ctx, where, "client", "add", name, "--out", "-")
	if err != nil {
		return nil, err
	}
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), b, 0o600); err != nil {
			return nil, err
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS13}), nil
}

// Docker runs a command of the engine's, for a minute at most.
func Docker(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, Tail(string(out), 2000))
	}
	return strings.TrimSpace(string(out)), nil
}

// Tail is the end of a text.
func Tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
