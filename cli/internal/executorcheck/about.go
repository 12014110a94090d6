package executorcheck

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/shallot-net/shallot/kit/fault"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
)

// answerTime is what a provider grants a look.
const answerTime = 3 * time.Second

// describe holds the description against what a provider takes: the same bounds as those of the task service.
func (c *checker) describe(ctx context.Context) (string, error) {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	d, err := c.client.Describe(ctx, &executorv1.DescribeRequest{}, grpc.MaxCallRecvMsgSize(64<<10))
	if err != nil {
		return "", err
	}
	if err := checkAbout(d); err != nil {
		return "", err
	}
	if c.cfg.Type != "" && d.GetType() != c.cfg.Type {
		return "", fmt.Errorf("its type is %q, and should be %q", d.GetType(), c.cfg.Type)
	}
	c.about = d
	return fmt.Sprintf("type %s, version %q, %d side by side", d.GetType(), d.GetVersion(), c.width()), nil
}

func checkAbout(d *executorv1.DescribeResponse) error {
	t := d.GetType()
	switch {
	case t == "" || len(t) > 64 || t[0] < 'a' || t[0] > 'z' || strings.Trim(t, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "":
		return fmt.Errorf("its type %q is not 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter first", short(t))
	case t == "sum" || t == "wasm":
		return fmt.Errorf("its type %q is built in: give yours another name", t)
	case len(d.GetVersion()) > 64 || !printable(d.GetVersion()):
		return errors.New("its version is not at most 64 printable bytes")
	case len(d.GetAttributes()) > 14:
		return fmt.Errorf("it has %d attributes, and may have 14", len(d.GetAttributes()))
	case d.GetMemory() > 1<<50:
		return fmt.Errorf("it needs %d bytes of memory: the unit is bytes", d.GetMemory())
	}
	words := 0
	for k, v := range d.GetAttributes() {
		if words += len(k) + len(v); words > 512 {
			return errors.New("its attributes have more than 512 bytes together")
		}
		if k == "" || len(k) > 64 || len(v) > 256 || !printable(k) || !printable(v) || k == "executor" || k == "min_memory" {
			return fmt.Errorf("its attribute %q is one that the provider sets, or not a printable name of 1 to 64 and a value of at most 256 bytes", short(k))
		}
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func (c *checker) health(ctx context.Context) (string, error) {
	ctx, stop := context.WithTimeout(ctx, answerTime)
	defer stop()
	h, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		if code := fault.From(err).Code; code == codes.Unimplemented || code == codes.NotFound {
			return "", skip("it has no grpc.health.v1, which is no mistake: while it answers it counts as well")
		}
		return "", err
	}
	if h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("it says %s", h.GetStatus())
	}
	return "SERVING", nil
}

func (c *checker) validate(ctx context.Context, options []byte) error {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	_, err := c.client.Validate(ctx, &executorv1.ValidateRequest{Options: options, Parts: c.start("", options, c.cfg.Parts, false).GetParts()})
	return err
}

func (c *checker) validateGood(ctx context.Context) (string, error) {
	if err := c.validate(ctx, c.cfg.Options); err != nil {
		if fault.From(err).Code == codes.Unimplemented {
			return "", skip("it has no Validate: bad payloads are found out by running them")
		}
		return "", fmt.Errorf("it refuses the payload (give a good one with --payload, --stdin and --input): %w", err)
	}
	return "accepted", nil
}

func (c *checker) validateBad(ctx context.Context) (string, error) {
	if len(c.cfg.Bad) == 0 {
		return "", skip("no --bad-payload was given")
	}
	for i, b := range c.cfg.Bad {
		err := c.validate(ctx, b)
		switch code := codeOf(err); {
		case code == codes.Unimplemented:
			return "", skip("it has no Validate")
		case err == nil:
			return "", fmt.Errorf("bad payload %d is accepted", i+1)
		case code != codes.InvalidArgument:
			return "", fmt.Errorf("bad payload %d is refused with %v, and should be with INVALID_ARGUMENT: %w", i+1, code, err)
		}
	}
	return fmt.Sprintf("%d refused", len(c.cfg.Bad)), nil
}

func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return fault.From(err).Code
}
