// Decodes SNP reference values as Contrast's manifest has them, one document a line: policy and platform by the types of
// go-sev-guest that Contrast's own are made of, the rest by the names that they have there; nothing may be left over.
// Answers each with the policies as a guest's report would show them.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
)

type values struct {
	SNP []struct {
		Platform           string
		ProductName        string
		TrustedMeasurement string
		MinimumTCB         struct {
			BootloaderVersion, TEEVersion, SNPVersion, MicrocodeVersion *uint8
		}
		GuestPolicy             abi.SnpPolicy
		PlatformInfo            abi.SnpPlatformInfo
		MinimumMitigationVector uint64
		AllowedChipIDs          []string
		CPUs                    uint64
	} `json:"snp"`
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		var decoded values
		if err := decoder.Decode(&decoded); err != nil {
			log.Fatal(err)
		}
		for _, row := range decoded.SNP {
			if _, err := kds.ParseProductLine(row.ProductName); err != nil {
				log.Fatal(err)
			}
			if digest, err := hex.DecodeString(row.TrustedMeasurement); err != nil || len(digest) != abi.MeasurementSize {
				log.Fatalf("measurement %q: %v", row.TrustedMeasurement, err)
			}
			for _, id := range row.AllowedChipIDs {
				if chip, err := hex.DecodeString(id); err != nil || len(chip) != abi.ChipIDSize {
					log.Fatalf("chip %q: %v", id, err)
				}
			}
			fmt.Printf("%x %t\n", abi.SnpPolicyToBytes(row.GuestPolicy), row.PlatformInfo.SMTEnabled)
		}
	}
}
