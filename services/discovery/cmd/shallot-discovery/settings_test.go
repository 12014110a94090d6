package main

import (
	"io"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
)

func TestSettings(t *testing.T) {
	const addr = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGood"
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{nil, ""},
		{[]string{"--role", "provider", "--bootstrap", addr + "," + addr, "--max-peers", "128", "--announce.min", "1s"}, ""},
		{[]string{"--mode", "anonymous"}, ""},
		{[]string{"--mode", "hidden"}, "hidden"},
		{[]string{"--role", "consumer"}, "consumer"},
		{[]string{"--bootstrap", "127.0.0.1:4001"}, "127.0.0.1:4001"},
		{[]string{"--max-peers", "64"}, "64"},
		{[]string{"--neighbours", "0"}, "neighbours"},
		{[]string{"--announce.max", "13h"}, "13h"},
		{[]string{"--bootstap", addr}, "did you mean"},
	} {
		s := newSettings()
		_, err := config.Load(process, s, append([]string{"--home", t.TempDir()}, c.args...), config.WithEnviron(nil), config.WithStdout(io.Discard))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}
