"""Sends two CloudEvents with the Python SDK, in binary and in structured mode, and prints each answer.

URL is the first argument. TOKEN, if set, is the bearer token; CA, if set, is the file of the authority to trust.
"""

import os
import sys

import requests
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

url = sys.argv[1]
session = requests.Session()
# With each request: a bundle in the environment of the process counts more than the session's.
verify = os.environ.get("CA", True)
if token := os.environ.get("TOKEN"):
    session.headers["Authorization"] = f"Bearer {token}"

for mode, to_message in (("binary", to_binary_event), ("structured", to_structured_event)):
    attributes = {
        "specversion": "1.0",
        "id": f"python-{mode}",
        "source": "/senders/python",
        "type": "order.paid",
        "subject": "Zoë's order, 100 %",
        "datacontenttype": "application/json",
    }
    message = to_message(CloudEvent(attributes, {"mode": mode, "price": "12,50 €"}))
    answer = session.post(url, data=message.body, headers=message.headers, verify=verify, timeout=30)
    print(answer.status_code, answer.text)
    answer.raise_for_status()
