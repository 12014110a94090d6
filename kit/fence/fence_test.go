package fence

import (
	"slices"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/fault"
)

func TestEnclosedProgramsAskNoServiceForNames(t *testing.T) {
	for _, c := range []struct{ env, want []string }{
		{nil, []string{"GODEBUG=netdns=go"}},
		{[]string{"A=b"}, []string{"A=b", "GODEBUG=netdns=go"}},
		{[]string{"GODEBUG=netdns=cgo,x=1", "A=b"}, []string{"A=b", "GODEBUG=netdns=cgo,x=1,netdns=go"}},
		{[]string{"GODEBUG="}, []string{"GODEBUG=netdns=go"}},
	} {
		if got := resolving(c.env); !slices.Equal(got, c.want) {
			t.Errorf("%q became %q, want %q", c.env, got, c.want)
		}
	}
}

func TestNoFenceSaysHowToGetOne(t *testing.T) {
	f := fault.From(unavailable("it is Monday", nil))
	if f.Reason != Unavailable {
		t.Error(f.Reason)
	}
	for _, want := range []string{"it is Monday", "PrivateNetwork=yes", "network_mode: none", "--unfenced"} {
		if !strings.Contains(f.Message, want) {
			t.Errorf("%q is not in %s", want, f.Message)
		}
	}
}
