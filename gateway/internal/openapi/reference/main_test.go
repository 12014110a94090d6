package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestThePageIsCurrent(t *testing.T) {
	want, err := page("../openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../../docs/reference/rest.md")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/reference/rest.md is not what the OpenAPI document says, %v: make reference, and commit it", err)
	}
	for _, line := range []string{"`POST /v1/tasks`", "\n## Problem\n", "| `task_id` (required) | path | string |", "(#watchtaskresponse)"} {
		if !strings.Contains(string(want), line) {
			t.Errorf("the page has no %q", line)
		}
	}
}
