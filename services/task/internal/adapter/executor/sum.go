package executor

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shallot-net/shallot/kit/fault"
	executorv1 "github.com/shallot-net/shallot/proto/shallot/executor/v1"
	"github.com/shallot-net/shallot/services/task/internal/adapter/executor/wire"
	"github.com/shallot-net/shallot/services/task/internal/app"
)

// TypeSum is the task type of Sum.
const TypeSum = "sum"

// Bounds on a sum. They bound its time too: the largest takes some tenths of a second.
const (
	maxAddends = 100_000
	maxDigits  = 10_000
	// maxSumBytes bounds all addends as text.
	maxSumBytes = 8 << 20
)

const reasonSum = "SUM_INVALID"

// Sum adds decimal numbers exactly. It runs in this process: its time is bounded by its bounds, and nothing in it is
// anyone's code.
type Sum struct{}

var _ app.Executor = Sum{}

// Describe implements app.Executor.
func (Sum) Describe() app.Capability { return app.Capability{Type: TypeSum, Version: "1"} }

// Validate implements app.Executor.
func (Sum) Validate(_ context.Context, options []byte, parts []app.Part) error {
	return ValidateSum(options, parts)
}

// ValidateSum checks a payload of the type sum. It needs no executor.
func ValidateSum(options []byte, parts []app.Part) error {
	_, err := sum(context.Background(), options, parts)
	return err
}

// Execute implements app.Executor.
func (Sum) Execute(ctx context.Context, run app.Run, sink app.Sink) (app.Outcome, error) {
	begin := time.Now()
	if run.Limits.Time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, run.Limits.Time, errTooLong)
		defer cancel()
	}
	sink.Started()
	text, err := sum(ctx, run.Options, run.Parts)
	out := app.Outcome{CPU: time.Since(begin)}
	switch {
	case ctx.Err() != nil && context.Cause(ctx) == errTooLong: //nolint:errorlint // a cause is compared as it was given
		out.Reason, out.Message = app.ReasonTimeLimit, fmt.Sprintf("the sum took longer than its limit of %v", run.Limits.Time)
		return out, nil
	case ctx.Err() != nil:
		out.Reason, out.Message = app.ReasonCancelled, "the task was cancelled"
		return out, nil
	case err != nil:
		out.Reason, out.Message = app.ReasonPayloadInvalid, publicMessage(err)
		return out, nil
	case run.Limits.Output > 0 && int64(len(text)) > run.Limits.Output:
		out.Reason, out.Message = app.ReasonOutputLimit, fmt.Sprintf("the sum has %d bytes, more than the limit of %d", len(text), run.Limits.Output)
		return out, nil
	}
	if err := sink.Output(wire.OutputStdout, []byte(text)); err != nil {
		return app.Outcome{}, fmt.Errorf("cannot take the sum: %w", err)
	}
	return out, nil
}

var errTooLong = fmt.Errorf("the time limit: %w", context.DeadlineExceeded)

// checkEvery is how many addends go by between looks at the context.
const checkEvery = 256

// sum is the sum of the payload's addends in its canonical form: no exponent, no zero that could be left out, a newline.
func sum(ctx context.Context, options []byte, parts []app.Part) (string, error) {
	var o executorv1.SumOptions
	if err := proto.Unmarshal(options, &o); err != nil {
		return "", fault.InvalidArgument(reasonSum, "the options of the task are no SumOptions: %v", err)
	}
	switch n := len(o.GetAddends()); {
	case len(parts) > 0:
		return "", fault.InvalidArgument(reasonSum, "a sum has addends and no parts, and here is a part %q", parts[0].Name)
	case n == 0:
		return "", fault.InvalidArgument(reasonSum, "a sum needs at least one addend, and there is none")
	case n > maxAddends:
		return "", fault.InvalidArgument(reasonSum, "a sum may have %d addends, and this one has %d: split it", maxAddends, n)
	}
	byExponent := make(map[int]*big.Int)
	size := 0
	for i, text := range o.GetAddends() {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return "", ctx.Err()
		}
		if size += len(text); size > maxSumBytes {
			return "", fault.InvalidArgument(reasonSum, "the addends have more than %d bytes, as of addend %d: split the sum", maxSumBytes, i+1)
		}
		d, err := parseDecimal(text)
		if err != nil {
			return "", fault.InvalidArgument(reasonSum, "addend %d, %s, %s", i+1, shown(text), err)
		}
		if acc := byExponent[d.exponent]; acc != nil {
			acc.Add(acc, &d.coefficient)
		} else {
			byExponent[d.exponent] = &d.coefficient
		}
	}
	text, ok := combine(byExponent)
	if !ok {
		return "", fault.InvalidArgument(reasonSum, "the sum has more than %d digits, largest addend %s: scale or split it", maxDigits, shown(largest(o.GetAddends())))
	}
	return text + "\n", nil
}

// decimal is coefficient * 10^exponent.
type decimal struct {
	coefficient big.Int
	exponent    int
}

// parseDecimal reads a sign, digits with at most one point, and an exponent. The error completes "addend N, TEXT, ...".
func parseDecimal(s string) (decimal, error) {
	var d decimal
	mantissa, expText, hasExp := s, "", false
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, expText, hasExp = s[:i], s[i+1:], true
	}
	digits := strings.TrimLeft(mantissa, "+-")
	sign := mantissa[:len(mantissa)-len(digits)]
	whole, fraction, _ := strings.Cut(digits, ".")
	if len(sign) > 1 || whole+fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return d, errNoNumber
	}
	if hasExp {
		exp, err := strconv.Atoi(expText)
		if err != nil || strings.ContainsRune(expText, '_') {
			if digits := strings.TrimLeft(expText, "+-"); digits != "" && len(expText)-len(digits) <= 1 && strings.Trim(digits, "0123456789") == "" {
				exp = 1 << 40 // a number, and too large: it is refused below, unless zero
			} else {
				return d, errNoNumber
			}
		}
		d.exponent = exp
	}
	all := strings.TrimLeft(whole+fraction, "0")
	d.exponent -= len(fraction)
	if trimmed := strings.TrimRight(all, "0"); len(trimmed) < len(all) {
		d.exponent += len(all) - len(trimmed)
		all = trimmed
	}
	if all == "" {
		d.exponent = 0
		return d, nil
	}
	// From the first digit to the last or to the point, whichever is further.
	if d.exponent > maxDigits-len(all) || d.exponent < -maxDigits || len(all) > maxDigits {
		return d, errTooManyDigits
	}
	d.coefficient.SetString(all, 10)
	if sign == "-" {
		d.coefficient.Neg(&d.coefficient)
	}
	return d, nil
}

var (
	errNoNumber      = fmt.Errorf("is no decimal number (like -1.25, .5 or 1e400)")
	errTooManyDigits = fmt.Errorf("has more than %d digits", maxDigits)
)

// combine adds up from the highest power of ten to the lowest, so that each step multiplies by what lies between two.
// It is false when the result has more than maxDigits digits.
func combine(byExponent map[int]*big.Int) (string, bool) {
	exponents := make([]int, 0, len(byExponent))
	for e := range byExponent {
		exponents = append(exponents, e)
	}
	slices.Sort(exponents)
	slices.Reverse(exponents)
	total, at := new(big.Int), exponents[0]
	ten, power := big.NewInt(10), new(big.Int)
	for _, e := range exponents {
		if total.Sign() != 0 && e != at {
			total.Mul(total, power.Exp(ten, big.NewInt(int64(at-e)), nil))
		}
		at = e
		total.Add(total, byExponent[e])
	}
	return format(total, at)
}

// format writes total * 10^exponent.
func format(total *big.Int, exponent int) (string, bool) {
	sign := ""
	if total.Sign() < 0 {
		sign = "-"
	}
	digits := strings.TrimPrefix(total.Text(10), "-")
	if total.Sign() == 0 {
		return "0", true
	}
	if exponent >= 0 {
		digits += strings.Repeat("0", exponent)
		return sign + digits, len(digits) <= maxDigits
	}
	if n := -exponent - len(digits); n >= 0 {
		digits = strings.Repeat("0", n+1) + digits
	}
	point := len(digits) + exponent
	whole, fraction := digits[:point], strings.TrimRight(digits[point:], "0")
	if fraction == "" {
		return sign + whole, len(whole) <= maxDigits
	}
	return sign + whole + "." + fraction, len(strings.TrimLeft(whole, "0"))+len(fraction) <= maxDigits
}

// shown is an input as an error names it.
func shown(s string) string {
	const most = 60
	if len(s) > most {
		return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
	}
	return strconv.Quote(s)
}

// largest is the addend with the most digits, for an error to name.
func largest(addends []string) string {
	best, most := addends[0], -1
	for _, a := range addends {
		d, err := parseDecimal(a)
		if err != nil || d.coefficient.Sign() == 0 {
			continue
		}
		if n := max(len(d.coefficient.Text(10))+max(d.exponent, 0), -d.exponent); n > most {
			best, most = a, n
		}
	}
	return best
}
