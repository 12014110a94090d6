package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	brokerv1 "github.com/shallot-net/shallot/proto/shallot/broker/v1"
)

func cpu(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// endless gives n bytes that no two chunks of share.
type endless struct {
	left int
	seed uint64
	b    []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if e.b == nil {
		e.b = randomBytes(e.seed, 1<<20)
	}
	n := min(len(p), e.left, len(e.b))
	copy(p[:n], e.b)
	for i := 0; i < n; i += 4096 { // cheaper than new randomness, and no block comes twice
		p[i] ^= byte(e.left >> 12)
		if i+2 < n {
			p[i+1] ^= byte(e.left >> 20)
			p[i+2] ^= byte(e.left >> 28)
		}
	}
	e.left -= n
	return n, nil
}

func BenchmarkPut256MiBSynced(b *testing.B) {
	s := newStore(b)
	b.SetBytes(256 << 20)
	for i := 0; b.Loop(); i++ {
		if _, _, err := s.Put(b.Context(), &endless{left: 256 << 20, seed: uint64(i)}, PinFor{Owner: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetLocal256MiB(b *testing.B) {
	s := newStore(b)
	c, _, err := s.Put(b.Context(), &endless{left: 256 << 20}, PinFor{Owner: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(256 << 20)
	for b.Loop() {
		drain(b, s, c.String(), Source{Local: true})
	}
}

func drain(b testing.TB, s *Store, c string, src Source) {
	f, err := s.Open(context.Background(), c, src, 0, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, 256<<10)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkGetFromPeer256MiB times the fetch and the sync that makes it durable.
func BenchmarkGetFromPeer256MiB(b *testing.B) {
	s := newStore(b)
	from := attach(b, s)
	c, _, err := s.Put(b.Context(), &endless{left: 256 << 20}, PinFor{Owner: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(256 << 20)
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		d := newStore(b)
		h := attach(b, d)
		know(h, from)
		src := Source{Peers: []string{from.ID().String()}}
		b.StartTimer()
		drain(b, d, c.String(), src)
		if _, err := d.Pin(b.Context(), c.String(), PinFor{Owner: "bench"}, src); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = d.Close()
	}
}

func benchPutMany(b *testing.B, size int) {
	c := serve(b, newStore(b))
	stream, err := c.PutMany(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	data := randomBytes(3, size)
	b.ResetTimer()
	for i := range b.N {
		copy(data, time.Now().AppendFormat(nil, time.RFC3339Nano))
		if err := stream.Send(&brokerv1.PutManyRequest{Seq: uint64(i + 1), Data: data, Pin: &brokerv1.PinOptions{Owner: "task:00112233445566778899aabbccddeeff"}}); err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPutManyStream2KiB(b *testing.B)  { benchPutMany(b, 2<<10) }
func BenchmarkPutManyStream64KiB(b *testing.B) { benchPutMany(b, 64<<10) }

// BenchmarkPutMany is the store's part alone: hash, write, index, pin.
func BenchmarkPutMany(b *testing.B) {
	for _, batch := range []int{1, 16} {
		for _, size := range []int{2 << 10, 64 << 10} {
			b.Run(sizeText(size)+"_x"+string(rune('0'+batch/10))+string(rune('0'+batch%10)), func(b *testing.B) {
				s := newStore(b)
				files := make([]Small, batch)
				for i := range files {
					files[i] = Small{Data: randomBytes(uint64(i), size), Pin: PinFor{Owner: "task:00112233445566778899aabbccddeeff", Keep: time.Hour}}
				}
				n := 0
				start := cpu(b)
				for b.Loop() {
					for i := range files {
						copy(files[i].Data, time.Now().AppendFormat(nil, time.RFC3339Nano))
						files[i].Data[40] = byte(i)
					}
					if _, err := s.PutMany(files); err != nil {
						b.Fatal(err)
					}
					n += batch
				}
				b.ReportMetric(float64((cpu(b)-start).Microseconds())/float64(n), "cpu-µs/file")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "µs/file")
			})
		}
	}
}

func BenchmarkPutSmallSynced(b *testing.B) {
	s := newStore(b)
	data := randomBytes(1, 2<<10)
	for b.Loop() {
		copy(data, time.Now().AppendFormat(nil, time.RFC3339Nano))
		if _, _, err := s.Put(b.Context(), bytes.NewReader(data), PinFor{Owner: "bench"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFloor256MiB is what the disk and the hash cost without a repository: one file, written, hashed and synced.
func BenchmarkFloor256MiB(b *testing.B) {
	dir := b.TempDir()
	buf := make([]byte, 1<<20)
	b.SetBytes(256 << 20)
	for b.Loop() {
		f, err := os.CreateTemp(dir, "floor")
		if err != nil {
			b.Fatal(err)
		}
		r := &endless{left: 256 << 20}
		for {
			n, err := io.ReadFull(r, buf)
			if err != nil {
				break
			}
			sha256.Sum256(buf[:n])
			if _, err := f.Write(buf[:n]); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
}
