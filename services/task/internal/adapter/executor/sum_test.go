package executor

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

func TestSum(t *testing.T) {
	nines := strings.Repeat("9", maxDigits)
	tests := map[string]struct {
		addends []string
		want    string
		message string // contained, where the sum is refused
	}{
		"two":                  {addends: []string{"1", "2"}, want: "3"},
		"cancels":              {addends: []string{"1e400", "-1e400"}, want: "0"},
		"decimals":             {addends: []string{"0.1", "0.2"}, want: "0.3"},
		"signs":                {addends: []string{"-1.25", "+.25", "5."}, want: "4"},
		"zeros go":             {addends: []string{"007.500", "0e999999999999999999999"}, want: "7.5"},
		"far apart":            {addends: []string{"1e20", "1e-20"}, want: "100000000000000000000.00000000000000000001"},
		"1e400":                {addends: []string{"1e400", "1"}, want: "1" + strings.Repeat("0", 399) + "1"},
		"many":                 {addends: slices.Repeat([]string{"0.01"}, maxAddends), want: "1000"},
		"one too many":         {addends: slices.Repeat([]string{"1"}, maxAddends+1), message: "split it"},
		"all digits":           {addends: []string{nines}, want: nines},
		"a digit too many":     {addends: []string{nines, "1"}, message: "more than 10000 digits"},
		"an addend too long":   {addends: []string{nines + "9"}, message: "addend 1"},
		"an exponent too high": {addends: []string{"1", "1e99999999999999999999"}, message: "addend 2"},
		"a word":               {addends: []string{"1", "three"}, message: `addend 2, "three", is no decimal number`},
		"nothing in one":       {addends: []string{""}, message: "is no decimal number"},
		"two signs":            {addends: []string{"--1"}, message: "is no decimal number"},
		"two points":           {addends: []string{"1.2.3"}, message: "is no decimal number"},
		"no exponent":          {addends: []string{"1e"}, message: "is no decimal number"},
		"infinity":             {addends: []string{"Inf"}, message: "is no decimal number"},
		"a separator":          {addends: []string{"1_000"}, message: "is no decimal number"},
		"no addend":            {message: "at least one"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options, err := proto.Marshal(&executorv1.SumOptions{Addends: test.addends})
			if err != nil {
				t.Fatal(err)
			}
			if err := ValidateSum(options, nil); (err == nil) != (test.message == "") {
				t.Errorf("validated: %v", err)
			}
			out, s := execute(t, Sum{}, app.Run{TaskID: "t", Options: options, Limits: testLimits})
			if test.message != "" {
				if out.Reason != app.ReasonPayloadInvalid || !strings.Contains(out.Message, test.message) || len(out.Message) > 300 {
					t.Errorf("%+v, want a message with %q", out, test.message)
				}
				return
			}
			if got := s.text("stdout"); out.Reason != "" || got != test.want+"\n" {
				t.Errorf("%+v, %.60q, want %.60q", out, got, test.want)
			}
		})
	}
}

func TestSumRefusesParts(t *testing.T) {
	if err := ValidateSum(nil, []app.Part{inline("stdin", []byte("1 2"))}); err == nil || !strings.Contains(err.Error(), `"stdin"`) {
		t.Errorf("%v", err)
	}
}
