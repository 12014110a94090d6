package main

import (
	"io"
	"strings"
	"testing"

	"github.com/shallot-net/shallot/kit/config"
)

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string // in the error
	}{
		{nil, ""},
		{[]string{"--role", "provider", "--sample", "1s", "--publish.min", "1s", "--max-metrics", "128"}, ""},
		{[]string{"--mode", "anonymous"}, ""},
		{[]string{"--mode", "hidden"}, "hidden"},
		{[]string{"--role", "consumer"}, "consumer"},
		{[]string{"--sample", "1ms"}, "sample"},
		{[]string{"--max-metrics", "64"}, "64"},
		{[]string{"--publish.max", "13h"}, "13h"},
		{[]string{"--smaple", "1s"}, "did you mean"},
	} {
		s := newSettings()
		_, err := config.Load(process, s, append([]string{"--home", t.TempDir()}, c.args...), config.WithEnviron(nil), config.WithStdout(io.Discard))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}
