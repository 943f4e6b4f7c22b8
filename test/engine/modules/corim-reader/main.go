// Reads an unsigned CoRIM by Veraison's library: what is not valid is an error. Prints its CoMIDs as JSON, and whether the
// bytes are those that this library and its CBOR encoder make of what they read. Argument: the file.
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"os"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/corim/corim"
	"github.com/veraison/eat"
)

type seen struct {
	ID            string            `json:"id"`
	Profile       string            `json:"profile"`
	Comids        []json.RawMessage `json:"comids"`
	Deterministic bool              `json:"deterministic"`
}

const (
	profileKey = 3
	uriTag     = 32
)

func main() {
	file, err := os.ReadFile(os.Args[1])
	must(err)
	encoder, err := cbor.CoreDetEncOptions().EncMode()
	must(err)
	var outer cbor.RawTag
	must(cbor.Unmarshal(file, &outer))
	var members map[uint64]cbor.RawMessage
	must(cbor.Unmarshal(outer.Content, &members))
	again, err := encoder.Marshal(cbor.Tag{Number: outer.Number, Content: members})
	must(err)
	result := seen{Deterministic: bytes.Equal(again, file)}

	// The draft's profile is a tagged URI, which the library takes since May 2026. This version of it takes one without its tag.
	var uri cbor.RawTag
	must(cbor.Unmarshal(members[profileKey], &uri))
	if uri.Number != uriTag {
		log.Fatalf("the profile has the tag %d", uri.Number)
	}
	members[profileKey] = uri.Content
	older, err := encoder.Marshal(cbor.Tag{Number: outer.Number, Content: members})
	must(err)
	manifest, err := corim.UnmarshalUnsignedCorimFromCBOR(older)
	must(err)
	must(manifest.Valid())
	result.ID = manifest.GetID()
	result.Profile, err = manifest.Profile.Get()
	must(err)
	for _, tag := range manifest.Tags {
		if tag.Number != corim.ComidTag {
			log.Fatalf("the tag %d is none of a CoMID", tag.Number)
		}
		result.read(tag.Content, manifest.Profile)
	}
	must(json.NewEncoder(os.Stdout).Encode(result))
}

func (result *seen) read(content []byte, profile *eat.Profile) {
	comid, err := corim.UnmarshalComidFromCBOR(content, profile)
	must(err)
	must(comid.Valid())
	again, err := comid.ToCBOR()
	must(err)
	result.Deterministic = result.Deterministic && bytes.Equal(again, content)
	text, err := comid.ToJSON()
	must(err)
	result.Comids = append(result.Comids, text)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
