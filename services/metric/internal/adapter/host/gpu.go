package host

import (
	"context"
	"encoding/csv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

const (
	gpuTimeout   = 20 * time.Second // a driver that hangs costs no more; one that nobody holds open has been seen to take several
	maxSMIOutput = 64 << 10
)

// findGPUs asks NVIDIA's tool, and the kernel for the others. ok is false when the tool is there and could not say.
func findGPUs(ctx context.Context) (found []domain.GPU, ok bool) {
	found, ok = nvidia(ctx)
	return append(found, drm("/sys/class/drm")...), ok
}

func nvidia(ctx context.Context) (found []domain.GPU, ok bool) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil, true
	}
	cmd := exec.CommandContext(ctx, path, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
	cmd.WaitDelay = time.Second // a child of its own may hold the pipe
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return nil, false
	}
	text, readErr := io.ReadAll(io.LimitReader(out, maxSMIOutput))
	_ = out.Close() // or a tool that prints more would wait for ever for its reader
	if err := cmd.Wait(); err != nil || readErr != nil {
		return nil, false
	}
	return parseSMI(string(text)), true
}

// parseSMI reads "name, MiB" lines. Where the driver does not know, it says "[N/A]".
func parseSMI(text string) []domain.GPU {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace, r.FieldsPerRecord = true, 2
	var out []domain.GPU
	for len(out) < domain.MaxGPUs {
		f, err := r.Read()
		if err != nil {
			break
		}
		mib, _ := strconv.ParseUint(strings.TrimSpace(f[1]), 10, 40)
		out = append(out, domain.GPU{Model: strings.TrimSpace(f[0]), Memory: mib << 20})
	}
	return out
}

const vendorNVIDIA = "0x10de"

var vendors = map[string]string{"0x1002": "AMD", "0x8086": "Intel"}

// drm reads the graphics cards of sysfs that have memory of their own, or at least a known vendor. NVIDIA's tell nothing
// here that its tool does not.
func drm(root string) []domain.GPU {
	cards, err := filepath.Glob(filepath.Join(root, "card[0-9]*"))
	if err != nil {
		return nil
	}
	var out []domain.GPU
	for _, card := range cards {
		if strings.Contains(filepath.Base(card), "-") || len(out) == domain.MaxGPUs { // card0-HDMI-A-1 is a connector
			continue
		}
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(card, "device", name))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(b[:min(len(b), 256)]))
		}
		vendor := read("vendor")
		memory, _ := strconv.ParseUint(read("mem_info_vram_total"), 10, 64)
		name := vendors[vendor]
		if vendor == vendorNVIDIA || name == "" && memory == 0 {
			continue
		}
		model := read("product_name")
		if model == "" {
			model = strings.TrimSpace(name + " " + strings.TrimPrefix(read("device"), "0x"))
		}
		out = append(out, domain.GPU{Model: model, Memory: memory})
	}
	return out
}
