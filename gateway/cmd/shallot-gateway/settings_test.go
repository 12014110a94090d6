package main

import (
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
)

// What a gateway says of an anonymous node's tasks leaves the machine no more than what its other processes say.
func TestAnAnonymousGatewayHasNoCollectorElsewhere(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--trace.endpoint", "collector.example.org:4317", "--trace.tls=true"}, ""},
		{[]string{"--mode", "anonymous", "--trace.endpoint", "unix:/run/collector.sock"}, ""},
		{[]string{"--mode", "anonymous"}, ""},
		{[]string{"--mode", "anonymous", "--trace.endpoint", "collector.example.org:4317", "--trace.tls=true"}, "trace.endpoint"},
		{[]string{"--mode", "anonymous", "--trace.endpoint", "127.0.0.1:4317"}, "trace.endpoint"},
		{[]string{"--mode", "hidden"}, "mode"},
	} {
		_, err := config.Load(process, newSettings(), append([]string{"--home", t.TempDir()}, c.args...))
		if (err != nil) != (c.want != "") || err != nil && !strings.Contains(err.Error(), c.want+" is") {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
