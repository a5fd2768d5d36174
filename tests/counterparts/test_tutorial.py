"""The tutorial, run as it stands there."""

import json
import re

from support import REPOSITORY

# A block that follows this comment is part of the tutorial.
BLOCK = re.compile(r"<!-- tutorial -->\s*```sh\n(.*?)```", re.S)


def test_the_tutorial_does_what_it_says(machine):
    text = (REPOSITORY / "docs" / "tutorial.md").read_text()
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("<!-- tutorial -->") == 6, "a marked block is not a sh block"
    connected, called, told, acted, shown, again = [machine.sh(block) for block in blocks]
    assert "connected: status 202" in connected and '"id": "evt_' in called
    assert told.count("leads") >= 2 and "none" in told
    assert acted.count("succeeded") == 1, acted
    assert '"customer":"eve@example.com","seats":12,"lookup":"evt_' in shown and "authorization: Bearer ••••••" in shown, shown
    assert again.count("succeeded") == 3, again

    # The other side: what came at the accounting system, each with its look-up.
    invoices = [event["body"] for event in machine.cli("events list --endpoint books")]
    customers = [json.loads(invoice)["customer"] for invoice in invoices]
    assert sorted(customers) == ["ada@example.com", "eve@example.com", "eve@example.com"], invoices
    lookups = [event for event in machine.cli("events list --endpoint metrics") if event["event_name"] == "visits"]
    assert len(lookups) == 4, "one by hand, and one for each job"
