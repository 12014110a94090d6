package host

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"

	"github.com/shallot-net/shallot/services/metric/internal/domain"
)

func TestThisMachineIsMeasured(t *testing.T) {
	h := New(t.TempDir())
	m := h.Measure(t.Context())
	if int(m.CPU.Threads) < 1 || m.CPU.Cores < 1 || m.Memory.Total == 0 || m.Memory.Free == 0 || m.Disk.Total == 0 {
		t.Errorf("measured %+v", m)
	}
	if m.CPU.Load < 0 || m.CPU.Load > 1 {
		t.Errorf("load %v", m.CPU.Load)
	}
	sound := m.Sound()
	sound.PeerID, sound.Version, sound.Interval = "12D3KooWGood", 1, time.Second
	if err := sound.Check(); err != nil {
		t.Error(err)
	}
	if runtime.GOOS == "linux" && m.CPU.Model == "" {
		t.Log("this kernel names no CPU model")
	}
}

func TestLoadIsTheBusyShareSinceTheLastReading(t *testing.T) {
	before := cpu.TimesStat{User: 100, System: 50, Idle: 800, Iowait: 50}
	for _, c := range []struct {
		name  string
		after cpu.TimesStat
		want  float64
		ok    bool
	}{
		{"a quarter", cpu.TimesStat{User: 120, System: 55, Idle: 870, Iowait: 55}, 0.25, true},
		{"idle", cpu.TimesStat{User: 100, System: 50, Idle: 900, Iowait: 50}, 0, true},
		{"busy, stolen time too", cpu.TimesStat{User: 150, System: 50, Idle: 800, Iowait: 50, Steal: 50}, 1, true},
		{"idle time that ran backwards", cpu.TimesStat{User: 150, System: 50, Idle: 790, Iowait: 50}, 1, true},
		{"no time has passed", before, 0, false},
		{"the counters began anew", cpu.TimesStat{User: 1}, 0, false},
	} {
		got, ok := busyShare(before, c.after)
		if ok != c.ok || got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func TestParseSMI(t *testing.T) {
	for text, want := range map[string][]domain.GPU{
		"":                                   nil,
		"NVIDIA H100 80GB HBM3, 81559\n":     {{Model: "NVIDIA H100 80GB HBM3", Memory: 81559 << 20}},
		"Tesla T4, 15360\nTesla T4, 15360\n": {{Model: "Tesla T4", Memory: 15360 << 20}, {Model: "Tesla T4", Memory: 15360 << 20}},
		"Orin, [N/A]\n":                      {{Model: "Orin"}},
		"No devices were found\n":            nil,
		"a, 99999999999999999999999\n":       {{Model: "a"}},
	} {
		got := parseSMI(text)
		if text == "a, 99999999999999999999999\n" && len(got) == 1 {
			got[0].Memory = 0 // clamped by the parser to its range, and by Sound to sense
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("parseSMI(%q) = %+v, want %+v", text, got, want)
		}
	}
}

func TestDRM(t *testing.T) {
	root := t.TempDir()
	card := func(name string, files map[string]string) {
		dir := filepath.Join(root, name, "device")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for f, content := range files {
			if err := os.WriteFile(filepath.Join(dir, f), []byte(content+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	card("card0", map[string]string{"vendor": "0x1002", "device": "0x744c", "mem_info_vram_total": "25753026560"})
	card("card0-HDMI-A-1", map[string]string{"vendor": "0x1002"})
	card("card1", map[string]string{"vendor": "0x10de", "device": "0x2330"}) // nvidia-smi's
	card("card2", map[string]string{"vendor": "0x8086", "device": "0x56a0"})
	card("card3", map[string]string{"vendor": "0x1234"}) // a virtual machine's frame buffer
	card("card4", map[string]string{"vendor": "0x1002", "mem_info_vram_total": "nonsense", "product_name": "Radeon Pro W7900"})
	want := []domain.GPU{{Model: "AMD 744c", Memory: 25753026560}, {Model: "Intel 56a0"}, {Model: "Radeon Pro W7900"}}
	if got := drm(root); !reflect.DeepEqual(got, want) {
		t.Errorf("drm = %+v, want %+v", got, want)
	}
	if got := drm(filepath.Join(root, "none")); got != nil {
		t.Errorf("without a drm directory: %+v", got)
	}
}

// A driver that hangs must not hold up measurements, nor a tool that prints without end.
func TestNVIDIAToolIsBounded(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	tool := func(script string) {
		if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	tool("exec tail -f /dev/null")
	began := time.Now()
	if got, ok := nvidia(ctx); got != nil || ok || time.Since(began) > 5*time.Second {
		t.Errorf("a tool that hangs gave %+v after %v", got, time.Since(began))
	}
	tool("yes 'GPU, 1' | head -c 1000000")
	if got, _ := nvidia(t.Context()); len(got) > domain.MaxGPUs {
		t.Errorf("%d GPUs", len(got))
	}
	tool("echo 'NVIDIA L4, 23034'")
	if got, _ := nvidia(t.Context()); len(got) != 1 || got[0].Memory != 23034<<20 {
		t.Errorf("nvidia = %+v", got)
	}
}

func TestGPUsAreLookedForInTheBackground(t *testing.T) {
	h := New(t.TempDir())
	looked := make(chan struct{})
	h.gpu = func(context.Context) ([]domain.GPU, bool) {
		<-looked
		return []domain.GPU{{Model: "slow"}}, true
	}
	if m := h.Measure(t.Context()); len(m.GPUs) != 0 {
		t.Error("the first measurement waited")
	}
	close(looked)
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(time.Millisecond); ; {
		if m := h.Measure(t.Context()); len(m.GPUs) == 1 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never seen")
		}
	}
}

func BenchmarkMeasure(b *testing.B) {
	h := New(b.TempDir())
	for b.Loop() {
		h.Measure(b.Context())
	}
}
