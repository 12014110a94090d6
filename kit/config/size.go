package config

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// Size is a number of bytes that reads and prints as "64MiB".
type Size int64

// UnmarshalText takes "64MiB", "64MB", "65536".
func (s *Size) UnmarshalText(b []byte) error {
	n, err := humanize.ParseBytes(string(b))
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("not a size such as 64MiB, 1.5GB or 4096")
	}
	*s = Size(n)
	return nil
}

// MarshalText prints the largest unit that is exact, so that the text reads back as the same number.
func (s Size) MarshalText() ([]byte, error) {
	n, unit := int64(s), 0
	for units := []string{"B", "KiB", "MiB", "GiB", "TiB"}; ; unit++ {
		if n == 0 || n%1024 != 0 || unit == len(units)-1 {
			return fmt.Appendf(nil, "%d%s", n, units[unit]), nil
		}
		n /= 1024
	}
}

func (s Size) String() string {
	b, _ := s.MarshalText()
	return string(b)
}
